//! A bad way to the S3 server.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_testkit::kopia::Place;
use holdfast_testkit::s3_proxy::{Rule, Trouble};
use holdfast_testkit::tree::Times;
use holdfast_testkit::{S3Proxy, S3Server};
use http::Method;
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;

use crate::fixture::{Arena, full, id, said, signal, utf8};
use crate::trees::{self, MIB};

/// As long as the agent waits for an answer by default.
const STALL: Duration = Duration::from_secs(30);

/// A repository in S3: kopia has the good way to it, we have the bad one.
struct Bad {
    arena: Arena,
    proxy: S3Proxy,
    _server: S3Server,
    _runtime: Runtime,
}

impl Bad {
    fn new() -> Self {
        let (mut arena, server) = Arena::ours_in_s3();
        let runtime = Runtime::new().unwrap();
        let proxy = runtime.block_on(S3Proxy::start(server.address(), None)).unwrap();
        arena.agent.place = Place::S3 {
            endpoint: proxy.endpoint().trim_start_matches("http://").to_owned(),
            bucket: "volumes".to_owned(),
            prefix: String::new(),
        };
        Self {
            arena,
            proxy,
            _server: server,
            _runtime: runtime,
        }
    }

    /// How many requests came so far.
    fn requests(&self) -> usize {
        let methods = [
            Method::GET,
            Method::PUT,
            Method::HEAD,
            Method::POST,
            Method::DELETE,
        ];
        methods.iter().map(|method| self.proxy.count(method)).sum()
    }
}

#[test]
fn what_goes_wrong_on_the_way_changes_nothing_in_the_end() {
    let bad = Bad::new();
    let arena = &bad.arena;
    let source = arena.path("source");
    trees::odd(&source);
    for (method, trouble) in [
        (Method::PUT, Trouble::Status(500)),
        (Method::PUT, Trouble::Status(503)),
        (Method::PUT, Trouble::ResetRequest),
        (Method::PUT, Trouble::LoseAnswer),
        (Method::PUT, Trouble::FlipRequest),
        (Method::PUT, Trouble::Stall(Duration::from_millis(300))),
        (Method::GET, Trouble::Status(500)),
        (Method::GET, Trouble::Status(503)),
        (Method::GET, Trouble::ResetAnswer),
        (Method::GET, Trouble::TruncateAnswer),
        (Method::GET, Trouble::LoseAnswer),
        (Method::GET, Trouble::Stall(Duration::from_millis(300))),
    ] {
        for nth in [1, 2, 3] {
            let rule = Rule::new(trouble).method(method.clone()).nth(nth);
            // An answer that is cut and says that it is whole shows only where it is known how long it must be.
            let rule = match trouble {
                Trouble::TruncateAnswer => rule.path("volumes/p"),
                _ => rule,
            };
            bad.proxy.add(rule);
        }
        let summary = arena.agent.backup(
            &source,
            &["--force-read", "--source-path", &format!("{trouble:?}")],
        );
        let target = tempfile::tempdir_in(arena.folder.path()).unwrap();
        let restored = target.path().join("restored");
        arena.agent.run("restore", &[id(&summary), utf8(&restored)], &[]);
        holdfast_testkit::tree::ensure_same(&source, &restored, Times::All)
            .unwrap_or_else(|error| panic!("{method} {trouble:?}: {error}"));
        bad.proxy.heal();
        trees::rewrite(&source.join("sizes/8388608"), 7);
        trees::small(&source.join("more"), 30, 1);
    }
    let summary = arena.agent.backup(&source, &[]);
    arena.kopia_agrees(&[(id(&summary), &source)]);
}

#[test]
fn one_request_of_many_that_stalls_for_half_a_minute_is_repeated() {
    if !full() {
        return;
    }
    let bad = Bad::new();
    let arena = &bad.arena;
    let source = arena.path("source");
    trees::small(&source, 200, 1);
    for n in 0..8 {
        fs::write(source.join(format!("large-{n}")), trees::noise(n, 20 * MIB)).unwrap();
    }
    bad.proxy.add(
        Rule::new(Trouble::Stall(STALL))
            .method(Method::PUT)
            .path("volumes/p")
            .nth(3),
    );
    let begin = Instant::now();
    let summary = arena.agent.backup(&source, &[]);
    let took = begin.elapsed();
    assert!(took > STALL && took < 3 * STALL, "{took:?}");
    bad.proxy.heal();
    bad.proxy.add(
        Rule::new(Trouble::Stall(STALL))
            .method(Method::GET)
            .path("volumes/p")
            .nth(3),
    );
    let begin = Instant::now();
    arena.agent_restores(id(&summary), &source, Times::All);
    let took = begin.elapsed();
    assert!(took > STALL && took < 3 * STALL, "{took:?}");
    bad.proxy.heal();
    arena.kopia_agrees(&[(id(&summary), &source)]);
}

#[test]
fn a_server_that_stays_away_is_an_error_that_says_so() {
    let bad = Bad::new();
    let source = bad.arena.path("source");
    trees::small(&source, 10, 1);
    bad.proxy.add(Rule::new(Trouble::Status(503)));
    let begin = Instant::now();
    let said = bad
        .arena
        .agent
        .attempt("backup", &[utf8(&source)], &["--storage-patience", "2s"]);
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.errors_about("SlowDown") > 0, "{:?}", said.lines);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    bad.proxy.heal();
    let summary = bad.arena.agent.backup(&source, &[]);
    bad.arena.kopia_agrees(&[(id(&summary), &source)]);
}

#[test]
fn a_signal_ends_the_agent_wherever_the_server_is_silent() {
    let bad = Bad::new();
    let arena = &bad.arena;
    let (source, target) = (arena.path("source"), arena.path("restored"));
    trees::small(&source, 50, 1);
    let first = arena.agent.backup(&source, &[]);
    let commands = [
        ("backup", vec![utf8(&source)]),
        ("list", vec![]),
        ("restore", vec![id(&first), utf8(&target)]),
        ("verify", vec!["--percent", "100"]),
    ];
    for (command, words) in &commands {
        let mut ended = 0;
        for nth in (1..).step_by(if full() { 1 } else { 4 }) {
            let before = bad.requests();
            bad.proxy
                .add(Rule::new(Trouble::Stall(Duration::from_mins(10))).nth(nth));
            let mut child = arena
                .agent
                .command(command, words, &[])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            while bad.requests() - before < usize::try_from(nth).unwrap()
                && child.try_wait().unwrap().is_none()
            {
                thread::sleep(Duration::from_millis(2));
            }
            bad.proxy.heal();
            if child.try_wait().unwrap().is_some() {
                break;
            }
            let begin = Instant::now();
            signal(&child, Signal::SIGTERM);
            while child.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(2) {
                thread::sleep(Duration::from_millis(2));
            }
            let took = begin.elapsed();
            // It may be over.
            let _ = child.kill();
            let said = said(&child.wait_with_output().unwrap());
            assert_eq!(
                said.code,
                Some(4),
                "{command}, request {nth}, {took:?}: {}",
                said.stderr
            );
            ended += 1;
        }
        assert!(ended > 1, "{command}: {ended}");
    }
}
