use super::*;
use std::fs::FileTimes;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn objects() -> (tempfile::TempDir, Objects) {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = Objects::open(folder.path().to_owned());
    (folder, objects)
}

fn write(
    objects: &Objects,
    name: &str,
    body: &[u8],
    condition: GenerationMatch,
) -> Result<ObjectMetadata, StoreError> {
    let path = objects.path(name)?;
    let mut partial = objects.begin(&path, body.len() as u64)?;
    partial.append(body)?;
    objects.commit(partial, &path, condition)
}

#[test]
fn an_object_appears_only_when_it_is_complete() {
    let (folder, objects) = objects();
    let path = objects.path("AB.tar").expect("a path");
    let mut partial = objects.begin(&path, 4).expect("begun");
    partial.append(b"half").expect("appended");
    assert_eq!(objects.metadata(&path).expect("metadata"), None);
    drop(partial);
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("read").count(),
        0,
        "a dropped upload leaves nothing behind"
    );
    let stored = write(&objects, "AB.tar", b"123456789", GenerationMatch::Absent).expect("stored");
    assert_eq!(stored.crc32c, Crc32c(0xE306_9283));
    assert_eq!(objects.metadata(&path).expect("metadata"), Some(stored));
    let reopened = Objects::open(folder.path().to_owned());
    assert_eq!(reopened.metadata(&path).expect("metadata"), Some(stored));
}

#[test]
fn a_conditional_write_succeeds_only_over_the_expected_generation() {
    let (_folder, objects) = objects();
    let first = write(&objects, "x", b"1", GenerationMatch::Absent).expect("stored");
    assert_eq!(
        write(&objects, "x", b"2", GenerationMatch::Absent),
        Err(StoreError::PreconditionFailed)
    );
    let second = write(&objects, "x", b"2", GenerationMatch::Is(first.generation)).expect("stored");
    assert!(second.generation > first.generation);
    assert_eq!(
        write(&objects, "x", b"3", GenerationMatch::Is(first.generation)),
        Err(StoreError::PreconditionFailed)
    );
    let third = write(&objects, "x", b"3", GenerationMatch::Any).expect("stored");
    assert!(third.generation > second.generation);
}

#[test]
fn a_file_from_1970_has_a_generation_that_a_precondition_can_name() {
    let (_folder, objects) = objects();
    let path = objects.path("x").expect("a path");
    let stored = File::create(&path).expect("a file");
    let times = FileTimes::new().set_modified(UNIX_EPOCH);
    stored.set_times(times).expect("set");
    assert_eq!(current_generation(&path).expect("metadata"), Some(1));
    assert!(write(&objects, "x", b"2", GenerationMatch::Is(1)).is_ok());
}

#[test]
fn a_small_object_is_put_whole_under_its_condition_and_read_back_with_its_generation() {
    let (folder, objects) = objects();
    let path = objects.path("00.json").expect("a path");
    assert_eq!(objects.read(&path, 10), Ok(None));
    let first = objects.put(&path, b"1", GenerationMatch::Absent);
    let first = first.expect("stored").generation;
    assert_eq!(objects.read(&path, 1), Ok(Some((b"1".to_vec(), first))));
    assert_eq!(
        objects.put(&path, b"2", GenerationMatch::Absent),
        Err(StoreError::PreconditionFailed)
    );
    let second = objects.put(&path, b"22", GenerationMatch::Is(first));
    let second = second.expect("stored").generation;
    assert!(second > first);
    assert_eq!(
        objects.put(&path, b"3", GenerationMatch::Is(first)),
        Err(StoreError::PreconditionFailed)
    );
    assert_eq!(objects.read(&path, 2), Ok(Some((b"22".to_vec(), second))));
    assert_eq!(current_generation(&path).expect("metadata"), Some(second));
    assert_eq!(
        objects.read(&path, 1),
        Err(StoreError::LargerThan {
            file: "00.json".to_owned(),
            bytes_max: 1
        })
    );
    let files = std::fs::read_dir(folder.path()).expect("read").count();
    assert_eq!(files, 1, "nothing staged is left");
}

#[test]
fn what_has_an_objects_name_but_is_no_file_is_neither_read_nor_written_nor_removed() {
    let (folder, objects) = objects();
    let outside = tempfile::tempdir().expect("a folder");
    let target = outside.path().join("target");
    std::fs::write(&target, b"kept").expect("written");
    let link = folder.path().join("00.tar");
    let dangling = folder.path().join("01.tar");
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    std::os::unix::fs::symlink(outside.path().join("new"), &dangling).expect("a link");
    let below = folder.path().join("02.tar");
    std::fs::create_dir(&below).expect("a folder");
    for (path, message) in [
        (&link, "00.tar is a symbolic link, not a file"),
        (&dangling, "01.tar is a symbolic link, not a file"),
        (&below, "02.tar is a folder, not a file"),
    ] {
        let partial = objects.begin(path, 0).expect("begun");
        let any = GenerationMatch::Any;
        for refused in [
            objects
                .metadata(path)
                .map(drop)
                .map_err(|error| error.to_string()),
            current_generation(path)
                .map(drop)
                .map_err(|error| error.to_string()),
            objects
                .commit(partial, path, any)
                .map(drop)
                .map_err(|error| error.to_string()),
            objects
                .put(path, b"x", any)
                .map(drop)
                .map_err(|error| error.to_string()),
            objects
                .read(path, 10)
                .map(drop)
                .map_err(|error| error.to_string()),
            objects
                .remove(path, any)
                .map(drop)
                .map_err(|error| error.to_string()),
            objects
                .check_generation(path, any)
                .map_err(|error| error.to_string()),
        ] {
            let refused = refused.expect_err("not an object");
            assert!(refused.starts_with(message), "{refused}");
        }
    }
    assert_eq!(std::fs::read(&target).expect("read"), b"kept");
    assert_eq!(std::fs::read_dir(outside.path()).expect("read").count(), 1);
    assert!(link.is_symlink() && dangling.is_symlink() && below.is_dir());
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 3);
}

/// An object in a file of this age, and the folder that holds it.
fn object_from(modified: SystemTime) -> (tempfile::TempDir, Objects, PathBuf) {
    let (folder, objects) = objects();
    let path = objects.path("x").expect("a path");
    let stored = File::create(&path).expect("a file");
    let times = FileTimes::new().set_modified(modified);
    stored.set_times(times).expect("set");
    (folder, objects, path)
}

#[test]
fn a_file_from_before_1970_is_an_object_of_the_first_generation() {
    let (_folder, objects, path) = object_from(UNIX_EPOCH - Duration::from_secs(1_000_000));
    assert_eq!(current_generation(&path).expect("metadata"), Some(1));
    assert!(write(&objects, "x", b"2", GenerationMatch::Is(1)).is_ok());
}

#[test]
fn an_object_over_a_file_from_the_far_future_gets_a_later_generation_or_none() {
    let year_20000 = UNIX_EPOCH + Duration::from_secs(568_971_820_800);
    let (_folder, objects, path) = object_from(year_20000);
    let before = current_generation(&path)
        .expect("metadata")
        .expect("a file");
    let written = write(&objects, "x", b"2", GenerationMatch::Is(before));
    let after = current_generation(&path)
        .expect("metadata")
        .expect("a file");
    match written {
        Ok(stored) => {
            assert!(stored.generation > before);
            assert_eq!(stored.generation, after);
        }
        // Of a file system that cannot express a later time, such as ext4 after 2446.
        Err(error) => {
            assert!(error.to_string().contains("with touch"), "{error}");
            assert_eq!(after, before);
        }
    }
}

/// Objects whose content is kept up to [`KEPT_BYTES_MAX`], and bodies of that length and one more.
fn small_objects() -> (tempfile::TempDir, Objects, Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = Objects::keeping(Retention::SmallObjects, folder.path().to_owned());
    let length = usize::try_from(KEPT_BYTES_MAX).expect("a length");
    (folder, objects, vec![7; length], vec![7; length + 1])
}

#[test]
fn of_a_large_object_only_the_metadata_are_kept_if_the_bucket_keeps_small_ones() {
    let (folder, objects, small, large) = small_objects();
    let kept = write(&objects, "small", &small, GenerationMatch::Any).expect("stored");
    let path = objects.path("a/large").expect("a path");
    let discarded = write(&objects, "a/large", &large, GenerationMatch::Absent).expect("stored");
    assert_eq!(discarded.content_length, KEPT_BYTES_MAX + 1);
    assert_eq!(discarded.crc32c, Crc32c::default().append(&large));
    assert_eq!(objects.metadata(&path).expect("known"), Some(discarded));
    let refusal = StoreError::ContentDiscarded {
        file: "large".to_owned(),
    };
    assert_eq!(objects.read(&path, u64::MAX), Err(refusal));
    let small_path = objects.path("small").expect("a path");
    let read = objects.read(&small_path, u64::MAX);
    assert_eq!(read, Ok(Some((small, kept.generation))));
    let names = std::fs::read_dir(folder.path()).expect("read");
    assert_eq!(names.count(), 1, "only the small object is a file");
}

#[test]
fn a_discarded_object_and_a_kept_one_replace_each_other_under_the_same_conditions() {
    let (folder, objects, small, large) = small_objects();
    let path = objects.path("x").expect("a path");
    let mut last = write(&objects, "x", &small, GenerationMatch::Absent).expect("stored");
    for body in [&large, &large, &small, &large] {
        for wrong in [GenerationMatch::Absent, GenerationMatch::Is(1)] {
            let refused = write(&objects, "x", body, wrong);
            assert_eq!(refused, Err(StoreError::PreconditionFailed));
        }
        let next = write(&objects, "x", body, GenerationMatch::Is(last.generation));
        let next = next.expect("stored");
        assert!(next.generation > last.generation);
        assert_eq!(objects.metadata(&path).expect("known"), Some(next));
        let files = std::fs::read_dir(folder.path()).expect("read").count();
        assert_eq!(files, usize::from(body == &small));
        last = next;
    }
    let wrong = objects.remove(&path, GenerationMatch::Is(1));
    assert_eq!(wrong, Err(StoreError::PreconditionFailed));
    assert_eq!(objects.remove(&path, GenerationMatch::Any), Ok(true));
    assert_eq!(objects.remove(&path, GenerationMatch::Any), Ok(false));
    assert_eq!(objects.metadata(&path).expect("readable"), None);
}

#[test]
fn a_tar_that_was_kept_is_not_lost_to_one_that_is_discarded() {
    let (folder, objects, _, large) = small_objects();
    let archive = Objects::open(folder.path().to_owned());
    write(&archive, "00.tar", &large, GenerationMatch::Absent).expect("stored");
    let refused = write(&objects, "00.tar", &large, GenerationMatch::Any);
    let kept = StoreError::ContentKept {
        file: "00.tar".to_owned(),
    };
    assert_eq!(refused, Err(kept));
    let content = std::fs::read(folder.path().join("00.tar")).expect("a tar");
    assert!(content == large);
}

#[test]
fn a_folder_is_no_object_for_a_discarded_one_either() {
    let (folder, objects, _, large) = small_objects();
    std::fs::create_dir(folder.path().join("x")).expect("a folder");
    let refused = write(&objects, "x", &large, GenerationMatch::Any);
    assert!(matches!(refused, Err(StoreError::NotAFile { .. })));
}
