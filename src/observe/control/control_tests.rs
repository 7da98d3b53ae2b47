use proptest::prelude::*;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::observe::trace::{Recording, Tracer};
use crate::observe::{VmParts, VmView};
use crate::virtio::testing::Rig;

struct Vm {
    rig: Rig,
    server: ControlServer,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn vm() -> Vm {
    let rig = Rig::new(|_| {});
    rig.start_msix();
    rig.start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let server = serve(&rig, &path).unwrap();
    Vm { rig, server, path, _dir: dir }
}

fn serve(rig: &Rig, path: &std::path::Path) -> Result<ControlServer, ServeError> {
    let disks = vec![rig.device.clone()];
    let parts = VmParts { disks: disks.clone(), routes: Some(rig.routes.clone()), ..VmParts::default() };
    ControlServer::start(path, parts, Tracer::new(&disks), Arc::new(|why| panic!("{why}")))
}

fn look(client: &mut Client) -> Result<VmView, ControlError> {
    client.ask(Request::Inspect { section: "all".into() })
}

/// Sends raw bytes and returns the line that comes back.
fn say(stream: &UnixStream, bytes: &[u8]) -> String {
    (&mut &*stream).write_all(bytes).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn the_death_of_its_thread_is_told() {
    let rig = Rig::new(|_| {});
    let dir = tempfile::tempdir().unwrap();
    let (sender, deaths) = crossbeam_channel::unbounded();
    let on_death = Arc::new(move |why| sender.send(why).unwrap());
    let parts = VmParts::default();
    let server = ControlServer::start(
        &dir.path().join("s"),
        parts,
        Tracer::new(std::slice::from_ref(&rig.device)),
        on_death,
    );
    let server = server.unwrap();
    server.break_listener();
    assert!(deaths.recv().unwrap().contains("thread control died: accept failed"));
}

#[test]
fn a_client_sees_the_vm_and_so_does_a_second_one() {
    let vm = vm();
    let (mut one, mut two) = (Client::connect(&vm.path).unwrap(), Client::connect(&vm.path).unwrap());
    for client in [&mut one, &mut two] {
        let view = look(client).unwrap();
        assert_eq!((view.pid, view.doorbells.unwrap().len()), (std::process::id(), 2));
    }
    assert_eq!(look(&mut one).unwrap().vectors.unwrap().len(), 3, "a second request on the same connection");
    assert_eq!(std::fs::metadata(&vm.path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn paths_of_a_live_disk_are_switched() {
    let vm = vm();
    let mut client = Client::connect(&vm.path).unwrap();
    let switch = |notify: Option<&str>, complete: Option<&str>| Request::Switch {
        disk: "disk0".into(),
        notify: notify.map(Into::into),
        complete: complete.map(Into::into),
        moderate: None,
    };
    let in_force: InForce = client.ask(switch(Some("exit"), Some("signal-msi"))).unwrap();
    assert_eq!((in_force.notify.as_str(), in_force.complete.as_str()), ("exit", "signal-msi"));
    assert!(vm.rig.vm.ioeventfds().is_empty(), "no ioeventfd is armed any more");
    let in_force: InForce = client.ask(switch(Some("mmio"), None)).unwrap();
    assert_eq!((in_force.notify.as_str(), in_force.complete.as_str()), ("mmio", "signal-msi"));
    for (request, word) in [
        (switch(Some("fast"), Some("irqfd")), "fast-mmio"),
        (switch(Some("pio"), None), "pio"),
        (switch(None, Some("resample")), "INTx"),
        (Request::Switch { disk: "sda".into(), notify: None, complete: None, moderate: None }, "disk0"),
    ] {
        let error = client.ask::<InForce>(request).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let in_force: InForce = client.ask(switch(None, None)).unwrap();
    assert_eq!(in_force.complete, "signal-msi", "an invalid switch changes nothing");
}

#[test]
fn hostile_and_old_clients_get_an_error_and_harm_nobody() {
    let vm = vm();
    for (line, word) in [
        (&b"nonsense\n"[..], "JSON"),
        (b"{\"doorbell\":2,\"verb\":\"inspect\",\"section\":\"all\"}\n", "version"),
        (b"{\"verb\":\"inspect\"}\n", "must contain"),
        (b"{\"doorbell\":1,\"verb\":\"explode\"}\n", "unknown request"),
        (b"{\"doorbell\":1,\"verb\":\"inspect\",\"section\":\"x\"}\n", "routes"),
        (b"{\"doorbell\":1,\"verb\":\"trace-stop\"}\n", "no trace was started"),
        (b"\xff\xfe\n", "JSON"),
        (&[b'['; MAX_REQUEST + 1][..], "at most"),
    ] {
        let answer = say(&UnixStream::connect(&vm.path).unwrap(), line);
        assert!(answer.starts_with("{\"doorbell\":1,\"error\":") && answer.contains(word), "{answer}");
    }
    // One client sends half a line and stays; another leaves at once.
    let half = UnixStream::connect(&vm.path).unwrap();
    (&half).write_all(b"{\"doorbell\"").unwrap();
    drop(UnixStream::connect(&vm.path).unwrap());
    assert!(look(&mut Client::connect(&vm.path).unwrap()).is_ok());
    // Ending the VM does not wait for it.
    drop(vm.server);
    assert_eq!((&half).read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_client_may_be_silent_between_requests_but_not_within_one() {
    let vm = vm();
    let mut tracing = Client::connect(&vm.path).unwrap();
    assert!(tracing.ask::<bool>(Request::TraceStart { capacity: 10 }).unwrap());
    // Half a request ends its connection after the timeout. The other client has been silent for longer and stays connected.
    let half = UnixStream::connect(&vm.path).unwrap();
    (&half).write_all(b"{\"doorbell\"").unwrap();
    assert_eq!((&half).read(&mut [0]).unwrap(), 0);
    assert!(tracing.ask::<Recording>(Request::TraceStop).is_ok());
}

#[test]
fn more_clients_than_there_is_room_for_are_turned_away() {
    let vm = vm();
    let mut kept: Vec<_> = (0..8).map(|_| Client::connect(&vm.path).unwrap()).collect();
    assert!(kept.iter_mut().all(|client| look(client).is_ok()));
    let error = look(&mut Client::connect(&vm.path).unwrap()).unwrap_err().to_string();
    assert!(error.contains("8 clients"), "{error}");
    assert!(look(&mut kept[7]).is_ok());
}

#[test]
fn a_trace_belongs_to_one_client_and_ends_with_it() {
    let vm = vm();
    let start = || Request::TraceStart { capacity: 10 };
    let (mut one, mut two) = (Client::connect(&vm.path).unwrap(), Client::connect(&vm.path).unwrap());
    assert!(one.ask::<bool>(start()).unwrap());
    assert!(two.ask::<bool>(start()).unwrap_err().to_string().contains("already"));
    let recording: Recording = one.ask(Request::TraceStop).unwrap();
    assert_eq!((recording.queues.len(), recording.queues[0].requests.len()), (2, 0));
    assert!(two.ask::<bool>(start()).unwrap());
    drop(two);
    // The server notices later, so the test polls until a deadline.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while one.ask::<bool>(start()).is_err() {
        assert!(std::time::Instant::now() < deadline, "a trace outlived its client");
        std::thread::yield_now();
    }
}

#[test]
fn a_socket_of_a_dead_vm_is_replaced_and_that_of_a_live_one_is_not() {
    let vm = vm();
    assert!(matches!(serve(&vm.rig, &vm.path), Err(ServeError::InUse(_))));
    assert!(look(&mut Client::connect(&vm.path).unwrap()).is_ok(), "the live one was not touched");
    drop(vm.server);
    assert!(!vm.path.exists(), "a VM that ends removes its socket");
    drop(UnixListener::bind(&vm.path).unwrap());
    let again = serve(&vm.rig, &vm.path).unwrap();
    assert!(look(&mut Client::connect(again.path()).unwrap()).is_ok());
    // Someone else's socket in its place stays.
    std::fs::remove_file(&vm.path).unwrap();
    let _other = UnixListener::bind(&vm.path).unwrap();
    drop(again);
    assert!(vm.path.exists());
    std::fs::remove_file(&vm.path).unwrap();
    std::fs::write(&vm.path, "precious").unwrap();
    assert!(matches!(serve(&vm.rig, &vm.path), Err(ServeError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&vm.path).unwrap(), "precious");
}

#[test]
fn the_client_tells_what_is_wrong_with_the_other_side() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    assert!(matches!(Client::connect(&path), Err(ControlError::NoSocket(_))));
    let listener = UnixListener::bind(&path).unwrap();
    // The answer, and the client's error; an empty answer stands for a VM that ends.
    for (answer, expected) in [
        ("", "runs but closed"),
        ("{\"doorbell\":1,\"ok\":", "runs but closed"),
        ("hello\n", "does not speak"),
        ("{\"doorbell\":9,\"ok\":true}\n", "does not speak"),
    ] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // A client that only checks whether the VM is there sends nothing.
                let stream = loop {
                    let (stream, _) = listener.accept().unwrap();
                    let mut line = String::new();
                    if BufReader::new(&stream).read_line(&mut line).unwrap() > 0 {
                        break stream;
                    }
                };
                (&stream).write_all(answer.as_bytes()).unwrap();
            });
            let error =
                Client::connect(&path).unwrap().ask::<bool>(Request::TraceStop).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        });
    }
    let mut client = Client::connect(&path).unwrap();
    drop(listener);
    assert!(matches!(client.ask::<bool>(Request::TraceStop), Err(ControlError::Gone(_))));
    assert!(matches!(Client::connect(&path), Err(ControlError::Ended(_))));
}

#[test]
fn of_vms_that_find_the_same_dead_socket_one_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    for round in 0..200 {
        drop(UnixListener::bind(&path).unwrap());
        let begin = std::sync::Barrier::new(4);
        let start = || {
            begin.wait();
            super::socket::listen(&path).ok()
        };
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(made.len(), 1, "round {round}: the others are refused");
        UnixStream::connect(&path).expect("and it can be reached");
        drop(made);
        std::fs::remove_file(&path).unwrap();
    }
}

proptest! {
    /// Whatever a client says is a request or is refused in one line.
    #[test]
    fn any_line_is_understood_or_refused(line in prop::collection::vec(any::<u8>(), 0..200)) {
        refused_in_one_line(&line)?;
    }

    /// The same with lines that are nearly requests.
    #[test]
    fn nearly_requests_are_understood_or_refused(
        version in prop_oneof![8 => Just("1".to_string()), 1 => any::<i64>().prop_map(|n| n.to_string()), 1 => Just("[]".into())],
        verb in prop_oneof![Just("inspect"), Just("switch"), Just("resize"), Just("trace-start"), Just("trace-stop"), Just("x")],
        keys in prop::collection::vec(
            ("(section|disk|notify|complete|moderate|size|capacity|[a-z]{1,3})", "(-?[0-9]{1,25}|\"[a-z0-9:]{0,9}\"|null|\\[\\]|1e999|\\{\\})"),
            0..5,
        ),
    ) {
        let keys: String = keys.iter().map(|(key, value)| format!(",\"{key}\":{value}")).collect();
        refused_in_one_line(format!("{{\"doorbell\":{version},\"verb\":\"{verb}\"{keys}}}").as_bytes())?;
    }
}

fn refused_in_one_line(line: &[u8]) -> Result<(), TestCaseError> {
    if let Err(refusal) = super::server::understand(line) {
        prop_assert_eq!(&refusal.kind, "usage");
        prop_assert!(!refusal.message.contains('\n') && refusal.message.len() > 10, "{}", refusal.message);
    }
    Ok(())
}
