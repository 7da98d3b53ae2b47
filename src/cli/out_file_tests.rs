use std::io::Read;
use std::os::unix::fs::symlink;

use super::super::out_place::FilesInUse;
use super::*;

fn put(path: &Path, text: &str) -> Result<(), Failure> {
    OutFile::open("--out", path)?.write_text(text)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_old_result_stays_until_there_is_a_new_one_and_its_mode_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    // Somebody else's file of a name that we could have thought of.
    fs::write(dir.path().join("r.part"), "precious").unwrap();
    drop(OutFile::open("--out", &path).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    let failed = OutFile::open("--out", &path).unwrap().write(|_| Err(io::Error::other("no")));
    assert!(failed.unwrap_err().message.contains("--out"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    put(&path, "new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_to_string(dir.path().join("r.part")).unwrap(), "precious");
    assert_eq!(names(dir.path()), ["r", "r.part"]);
}

#[test]
fn without_nameless_files_a_name_is_used_that_does_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    let named = || {
        let path = free_name(dir.path());
        let file = File::create_new(&path).unwrap();
        let leftover = Leftover::new(&path);
        Beside { file, target: dir.path().join("r"), name: Some((path, leftover)) }
    };
    drop(named());
    assert!(names(dir.path()).is_empty());
    named().take_place().unwrap();
    assert_eq!(names(dir.path()), ["r"]);
    let left = named();
    crate::host::cleanup::remove_all();
    assert_eq!(names(dir.path()), ["r"], "a signal leaves nothing");
    drop(left);
}

#[test]
fn a_link_is_followed_also_to_a_file_that_is_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("real")).unwrap();
    symlink("real/r", at("link")).unwrap();
    symlink("link", at("link2")).unwrap();
    for text in ["first", "second"] {
        put(&at("link2"), text).unwrap();
        assert_eq!(fs::read_to_string(at("real/r")).unwrap(), text);
    }
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
    assert_eq!(
        (names(dir.path()), names(&at("real"))),
        (vec!["link".into(), "link2".into(), "real".into()], vec!["r".to_string()])
    );
    symlink("circle", at("circle")).unwrap();
    assert!(put(&at("circle"), "").is_err());
}

#[test]
fn devices_and_pipes_are_streams() {
    put(Path::new("/dev/null"), "text").unwrap();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(put(Path::new("/dev/full"), "text").unwrap_err().message.contains("No space"));
    let (mut reader, writer) = io::pipe().unwrap();
    put(Path::new(&format!("/dev/fd/{}", writer.as_raw_fd())), "text").unwrap();
    put(Path::new(&format!("/proc/self/fd/{}", writer.as_raw_fd())), "more").unwrap();
    let closed = put(Path::new(&format!("/dev/fd/{}", reader.as_raw_fd())), "text").unwrap_err();
    assert!(closed.message.contains("cannot be written"), "{closed:?}");
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "textmore");
    assert!(OutFile::open("--out", Path::new("/dev/stdout")).unwrap().is_stdout());

    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let name = CString::new(fifo.as_os_str().as_bytes()).unwrap();
    // SAFETY: a valid string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert!(put(&fifo, "text").unwrap_err().message.contains("nobody reads from"));
    let mut reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    put(&fifo, "text").unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
}

#[test]
fn an_output_that_cannot_be_written_fails_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let places = [dir.path().to_path_buf(), dir.path().join("no/such/r"), "/proc/new".into(), "/".into()];
    for path in places {
        let failure = OutFile::open("--out", &path).unwrap_err();
        assert!(failure.code == 4 && failure.message.contains("--out"), "{failure:?}");
    }
}

#[test]
fn a_file_of_the_same_run_is_refused_whatever_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("disk"), "data").unwrap();
    fs::hard_link(at("disk"), at("hard")).unwrap();
    symlink("disk", at("soft")).unwrap();
    let mut files = FilesInUse::default();
    files.input("--disk", &at("disk"));
    for name in ["disk", "hard", "soft", "./disk"] {
        let failure = files.output("--stats", &at(name)).unwrap_err();
        assert!(failure.code == 2 && failure.message.contains("--stats and --disk"), "{failure:?}");
    }
    files.output("--stats", &at("new")).unwrap();
    assert!(files.output("--trace", &at("new")).is_err());
    files.output("--stats", Path::new("-")).unwrap();
    assert!(files.output("--trace", Path::new("/dev/stdout")).is_err());
    for _ in 0..2 {
        files.output("--out", Path::new("/dev/null")).unwrap();
    }
}
