//! The S3 store.

use test_servers::S3;

#[tokio::test]
async fn an_object_survives_a_kill() {
    let server = S3::start().await;
    let bucket = server.bucket().await;
    let key = format!("/{bucket}/kept/object");
    server.request("PUT", &key, b"seven".to_vec()).await;
    server.kill().await;
    server.start_again().await;
    assert_eq!(server.request("GET", &key, Vec::new()).await, b"seven");
    assert!(server.cpu_seconds() > 0.0);
}

#[tokio::test]
async fn a_bucket_is_new_and_empty() {
    let server = test_servers::s3().await;
    let (one, other) = tokio::join!(server.bucket(), server.bucket());
    assert_ne!(one, other);
    server.request("PUT", &format!("/{one}/mine"), Vec::new()).await;
    let listed = async |bucket: &str| {
        let list = server.request("GET", &format!("/{bucket}"), Vec::new()).await;
        String::from_utf8(list).unwrap().matches("<Key>").count()
    };
    assert_eq!((listed(&one).await, listed(&other).await), (1, 0));
}
