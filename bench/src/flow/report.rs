//! The tables of a run of `bench flow`.

use super::Outcome;
use crate::program::Program;
use crate::stats::median;

const MIB: f64 = 1024.0 * 1024.0;

/// Gathers what was measured.
pub(super) struct Report {
    conversations: usize,
    events: usize,
    bytes: u64,
    latency: u64,
    machine: Vec<(String, f64)>,
    runs: Vec<(Program, usize, Outcome)>,
    counted: Vec<(Program, Outcome)>,
}

impl Report {
    pub(super) fn new(conversations: usize, events: usize, bytes: u64, latency: u64) -> Self {
        Self { conversations, events, bytes, latency, machine: Vec::new(), runs: Vec::new(), counted: Vec::new() }
    }

    /// Notes the weather before a round.
    pub(super) fn machine(&mut self, load: String, syncs: f64) {
        self.machine.push((load, syncs));
    }

    /// Notes one run, and tells of it at once: the whole takes long.
    pub(super) fn ran(&mut self, program: Program, processes: usize, outcome: Outcome) {
        eprintln!(
            "{} x{processes}: {:.0}/s, {:.3} ms each, servers {:.3} ms each",
            program.name(),
            outcome.rate,
            outcome.cpu,
            outcome.servers.sum()
        );
        self.runs.push((program, processes, outcome));
    }

    /// Notes the run under strace.
    pub(super) fn counted(&mut self, program: Program, outcome: Outcome) {
        self.counted.push((program, outcome));
    }

    /// Prints medians, ratios, and syncs.
    pub(super) fn print(&self) {
        let (cores, syncs) = (cores(), self.machine.iter().map(|(_, syncs)| *syncs).collect::<Vec<_>>());
        let (least, most) = (syncs.iter().copied().fold(f64::MAX, f64::min), syncs.iter().copied().fold(0.0, f64::max));
        println!();
        println!(
            "{} conversations of {} bytes, {} events for our daemon; NICE answers after {} ms; medians",
            self.conversations, self.bytes, self.events, self.latency
        );
        println!("{cores} cores; bare page + fdatasync: {:.0}/s ({least:.0} to {most:.0})", median(syncs));
        if let (Some((first, _)), Some((last, _))) = (self.machine.first(), self.machine.last()) {
            println!("load average {first} before the first run, {last} before the last");
        }
        println!();
        println!(
            "| processes | program | conv/s | ceiling | of it | CPU ms | peak RSS MiB | PostgreSQL ms | RabbitMQ ms | \
             Fluvio ms | S3 ms | NICE ms | generator ms | log syncs |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        for (program, processes) in self.lines() {
            let of = |figure: fn(&Outcome) -> f64| self.median_of(program, processes, figure);
            let ceiling = cores * 1000.0 / of(|outcome| outcome.servers.sum()).max(f64::MIN_POSITIVE);
            println!(
                "| {processes} | {} | {:.0} | {ceiling:.0} | {:.0} % | {:.3} | {:.0} | {:.3} | {:.3} | {:.3} | \
                 {:.3} | {:.3} | {:.3} | {:.2} |",
                program.name(),
                of(|outcome| outcome.rate),
                of(|outcome| outcome.rate) / ceiling * 100.0,
                of(|outcome| outcome.cpu),
                of(|outcome| outcome.peak) / MIB,
                of(|outcome| outcome.servers.postgres),
                of(|outcome| outcome.servers.rabbitmq),
                of(|outcome| outcome.servers.fluvio),
                of(|outcome| outcome.servers.s3),
                of(|outcome| outcome.servers.source),
                of(|outcome| outcome.generator),
                of(|outcome| outcome.log_syncs),
            );
        }
        println!();
        println!(
            "All figures in ms and syncs are for one conversation. Ceiling: cores ÷ processor time of the servers in"
        );
        println!("the same runs, which is what a program of no cost at all would reach.");
        self.print_ratios();
        self.print_syncs();
    }

    /// Ours to itself unobserved, and to each peer, at the peer's best number of processes, as medians of the ratios within a round.
    fn print_ratios(&self) {
        println!();
        for ours in self.programs().into_iter().filter(|program| program.is_ours()) {
            let against = |other: &Program| !other.is_ours() || ours.unobserved() == Some(*other);
            for peer in self.programs().into_iter().filter(against) {
                let (own_best, best) = (self.best(ours), self.best(peer));
                let rate = self.ratio((ours, own_best), (peer, best), |ours, peer| ours.rate / peer.rate);
                let cpu = self.ratio((ours, own_best), (peer, best), |ours, peer| ours.cpu / peer.cpu);
                println!(
                    "{} x{own_best} against {} x{best}: {rate:.2} times the rate at {cpu:.2} times the CPU",
                    ours.name(),
                    peer.name()
                );
            }
            let (one, most) = (self.rates(ours, 1), self.best(ours));
            if most > 1 && !one.is_empty() {
                let more = self.ratio((ours, most), (ours, 1), |more, one| more.rate / one.rate);
                println!("{}: {most} processes reach {more:.2} times the rate of one", ours.name());
            }
        }
    }

    fn print_syncs(&self) {
        if self.counted.is_empty() {
            return;
        }
        println!();
        println!("fdatasync and fsync for one conversation, counted by strace in a slower run of 1 process:");
        println!();
        println!("| program | its own | RabbitMQ | PostgreSQL's log |");
        println!("|---|---|---|---|");
        for (program, outcome) in &self.counted {
            println!(
                "| {} | {:.3} | {:.3} | {:.3} |",
                program.name(),
                outcome.own_syncs,
                outcome.rabbitmq_syncs,
                outcome.log_syncs
            );
        }
    }

    fn lines(&self) -> Vec<(Program, usize)> {
        let mut lines: Vec<(Program, usize)> = Vec::new();
        for &(program, processes, _) in &self.runs {
            if !lines.contains(&(program, processes)) {
                lines.push((program, processes));
            }
        }
        lines
    }

    fn programs(&self) -> Vec<Program> {
        let mut programs: Vec<Program> = self.lines().into_iter().map(|(program, _)| program).collect();
        let mut seen = Vec::new();
        programs.retain(|program| {
            !seen.contains(program) && {
                seen.push(*program);
                true
            }
        });
        programs
    }

    /// The number of processes with which a program is fastest.
    fn best(&self, program: Program) -> usize {
        let own = self.lines().into_iter().filter(|(other, _)| *other == program);
        let rate = |processes: usize| self.median_of(program, processes, |outcome| outcome.rate);
        own.map(|(_, processes)| processes).max_by(|a, b| rate(*a).total_cmp(&rate(*b))).unwrap_or(1)
    }

    fn of(&self, program: Program, processes: usize) -> impl Iterator<Item = &Outcome> {
        let wanted = move |(p, n, _): &&(Program, usize, Outcome)| *p == program && *n == processes;
        self.runs.iter().filter(wanted).map(|(.., outcome)| outcome)
    }

    fn rates(&self, program: Program, processes: usize) -> Vec<f64> {
        self.of(program, processes).map(|outcome| outcome.rate).collect()
    }

    fn ratio(
        &self,
        (a, of_a): (Program, usize),
        (b, of_b): (Program, usize),
        ratio: fn(&Outcome, &Outcome) -> f64,
    ) -> f64 {
        median(self.of(a, of_a).zip(self.of(b, of_b)).map(|(a, b)| ratio(a, b)))
    }

    fn median_of(&self, program: Program, processes: usize, figure: fn(&Outcome) -> f64) -> f64 {
        median(self.of(program, processes).map(figure))
    }
}

/// The processors that this machine has.
fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}
