//! RabbitMQ passes the door's suite, and keeps its own promises.

use super::*;
use crate::clients::queue::conformance::{Subject, queue_checks};

struct Rabbit {
    options: RabbitOptions,
    queue: RabbitQueue,
}

fn options(url: String) -> RabbitOptions {
    RabbitOptions {
        url: url.into(),
        prefix: format!("test.{:016x}", rand::random::<u64>()),
        delays: Vec::new(),
        ca: None,
        service: "test".to_owned(),
    }
}

impl Rabbit {
    async fn open(options: RabbitOptions) -> Self {
        let queue = RabbitQueue::connect(options.clone(), &Metrics::new()).await.unwrap();
        Self { options, queue }
    }
}

impl Subject for Rabbit {
    async fn fresh() -> Self {
        Self::open(options(test_servers::rabbitmq().await.url())).await
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue.clone())
    }

    async fn crash(self) -> Self {
        self.queue.sever();
        Self::open(self.options).await
    }
}

queue_checks!(Rabbit);
