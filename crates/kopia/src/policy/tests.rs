use std::sync::Arc;

use allocation_counter::measure;
use proptest::prelude::*;

use super::pattern::Pattern;
use super::*;
use crate::hostile::{self, Bound};
use crate::manifest::Manifests;
use crate::object::testing::MemoryContents;
use crate::snapshot::SourceInfo;

#[derive(serde::Deserialize)]
struct Case {
    pattern: String,
    #[serde(default)]
    base: String,
    results: String,
}

/// The directory of a rule.
fn chars(path: &str) -> Arc<[char]> {
    path.chars().collect()
}

/// The answers of kopia's matcher to patterns put together at random.
fn compare(golden: &str) {
    let mut lines = golden.lines();
    let paths: Vec<String> = serde_json::from_str(lines.next().unwrap()).unwrap();
    let (mut cases, mut matches, mut wrong) = (0, 0, Vec::new());
    for line in lines {
        let case: Case = serde_json::from_str(line).unwrap();
        let results = match Pattern::parse(&case.pattern, &chars(&case.base)) {
            Err(_) => "error".to_owned(),
            Ok(pattern) => paths.iter().map(|path| ignores(&pattern, path)).collect(),
        };
        cases += 1;
        matches += results.matches('y').count();
        if results != case.results {
            wrong.push(format!("{line}\n  we say {results}"));
        }
    }
    assert!(cases > 300 && matches > 1000, "{cases} cases, {matches} matches");
    assert!(
        wrong.is_empty(),
        "{} of {cases}:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

fn ignores(pattern: &Pattern, path: &str) -> char {
    let name: Vec<char> = path.trim_end_matches('/').chars().collect();
    if pattern.ignores(&name, path.ends_with('/')) {
        'y'
    } else {
        'n'
    }
}

#[test]
fn patterns_match_what_kopias_match() {
    compare(include_str!("../../testdata/policy/patterns.jsonl"));
}

#[derive(serde::Deserialize)]
struct Tree {
    entries: Vec<TreeEntry>,
    included: Vec<String>,
}

#[derive(serde::Deserialize)]
struct TreeEntry {
    /// Directories end in a slash.
    path: String,
    #[serde(default)]
    size: u64,
    /// What is in it, of files that hold rules and of cache tags.
    text: Option<String>,
}

impl Tree {
    fn text(&self, path: &str) -> Option<Vec<u8>> {
        let entry = self.entries.iter().find(|entry| entry.path == path)?;
        entry.text.clone().map(String::into_bytes)
    }

    /// What is backed up of a directory, whose path is empty or ends in a slash.
    fn walk(
        &self,
        directory: &str,
        above: &Arc<IgnoreRules>,
        policy: Option<&FilesPolicy>,
        found: &mut Vec<String>,
    ) {
        let tag = FilesPolicy::default().cache_tag().unwrap();
        if self
            .text(&format!("{directory}{tag}"))
            .is_some_and(|text| is_cache_tag(&text))
        {
            return;
        }
        let path = format!("/{directory}");
        let mut read = |name: &str| Ok(self.text(&format!("{directory}{name}")));
        let rules = above
            .directory(path.trim_end_matches('/').as_bytes(), policy, &mut read)
            .unwrap();
        for entry in &self.entries {
            let name = entry.path.strip_prefix(directory).unwrap_or_default();
            let bare = name.trim_end_matches('/');
            if bare.is_empty() || bare.contains('/') {
                continue;
            }
            let path = format!("/{directory}{bare}");
            let candidate = Candidate {
                path: path.as_bytes(),
                directory: name.ends_with('/'),
                size: entry.size,
                same_device: true,
            };
            if !rules.excludes(&candidate) {
                found.push(entry.path.clone());
                if candidate.directory {
                    self.walk(&entry.path, &rules, None, found);
                }
            }
        }
    }
}

/// A tree with rules in many places, and what kopia backed up of it.
#[test]
fn kopia_backs_up_the_same_files() {
    let tree: Tree = serde_json::from_str(include_str!("../../testdata/policy/tree.json")).unwrap();
    let policy = FilesPolicy {
        ignore: vec!["*.global".to_owned()],
        ignore_dot_files: vec![".kopiaignore".to_owned(), ".myignore".to_owned()],
        max_file_size: 4000,
        ..FilesPolicy::default()
    };
    let mut found = Vec::new();
    tree.walk("", &Arc::default(), Some(&policy), &mut found);
    found.sort();
    assert_eq!(found, tree.included);
    assert!(found.len() > 30 && found.len() < tree.entries.len());
}

#[test]
fn other_devices_are_left_out_if_asked() {
    let candidate = Candidate {
        path: b"/mnt",
        directory: true,
        size: 0,
        same_device: false,
    };
    for (one_file_system, excluded) in [(None, false), (Some(false), false), (Some(true), true)] {
        let policy = FilesPolicy {
            one_file_system,
            ..FilesPolicy::default()
        };
        let root = Arc::new(IgnoreRules::default());
        let rules = root.directory(b"", Some(&policy), &mut |_| Ok(None)).unwrap();
        assert_eq!(rules.excludes(&candidate), excluded);
        let below = rules.directory(b"/a", None, &mut |_| Ok(None)).unwrap();
        assert!(Arc::ptr_eq(&rules, &below));
    }
}

#[test]
fn rules_that_are_no_patterns_are_errors() {
    let root = Arc::new(IgnoreRules::default());
    let policy = FilesPolicy {
        ignore_dot_files: vec!["rules".to_owned()],
        ..FilesPolicy::default()
    };
    let mut read = |_: &str| Ok(Some(b"fine\n[a".to_vec()));
    let error = root.directory(b"/d", Some(&policy), &mut read).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ignore rule: \"[a\" of /d/rules: a ] is missing"
    );
}

/// The global policy that kopia writes into a new repository, and the effective policy that comes of it.
#[test]
fn policies_are_read_and_merged() {
    let global = r#"{"retention":{"keepLatest":10},"files":{"ignoreDotFiles":[".kopiaignore"]},"errorHandling":{"ignoreFileErrors":false,"ignoreDirectoryErrors":false,"ignoreUnknownTypes":true},"scheduling":{"runMissed":true},"compression":{"compressorName":"none"},"metadataCompression":{"compressorName":"zstd-fastest"},"splitter":{},"actions":{},"osSnapshots":{"volumeShadowCopy":{"enable":0}},"logging":{"directories":{"snapshotted":5}},"upload":{"maxParallelSnapshots":1,"parallelUploadAboveSize":2147483648}}"#;
    let global: Policy = serde_json::from_str(global).unwrap();
    assert_eq!(global.extra.len(), 3);
    let host: Policy = serde_json::from_str(
        r#"{"files":{"ignore":["a"],"oneFileSystem":true},"compression":{"compressorName":"zstd","neverCompress":[".zip"],"minSize":10},"upload":{"parallelUploadAboveSize":-1}}"#,
    )
    .unwrap();
    let path: Policy = serde_json::from_str(
        r#"{"files":{"maxFileSize":7},"compression":{"neverCompress":[".gz"],"maxSize":100},"errorHandling":{"ignoreFileErrors":true},"splitter":{"algorithm":"FIXED-1M"}}"#,
    )
    .unwrap();
    let merged = Policy::merged([&path, &host, &global]);
    assert_eq!(merged.files.ignore, ["a"]);
    assert_eq!(
        (merged.files.max_file_size, merged.files.one_file_system),
        (7, Some(true))
    );
    assert_eq!(merged.files.ignore_dot_files, [".kopiaignore"]);
    assert_eq!(merged.error_handling.ignore_file_errors, Some(true));
    assert_eq!(merged.error_handling.ignore_directory_errors, Some(false));
    assert_eq!(merged.compression.never_compress, [".gz", ".zip"]);
    assert_eq!(
        (merged.splitter.algorithm.as_str(), merged.part_size()),
        ("FIXED-1M", None)
    );
    assert_eq!(merged.metadata_compressor(), Some("zstd-fastest"));
    let compressor = |name: &str, size| merged.compressor(name.as_ref(), size);
    assert_eq!(compressor("a.txt", 10), Some("zstd"));
    for (name, size) in [("a.txt", 9), ("a.txt", 101), ("a.b.gz", 50), (".zip", 50)] {
        assert_eq!(compressor(name, size), None, "{name}");
    }
    let alone = Policy {
        no_parent: true,
        ..path
    };
    let merged = Policy::merged([&alone, &host, &global]);
    assert!(merged.files.ignore_dot_files.is_empty() && merged.metadata_compressor().is_none());
}

#[test]
fn the_policy_that_velero_writes() {
    let policy = Policy::velero(4, 2 << 30);
    let text = String::from_utf8(crate::json::to_vec(&policy).unwrap()).unwrap();
    let expected = r#"{"retention":{"keepAnnual":2147483647,"keepDaily":2147483647,"keepHourly":2147483647,"keepLatest":2147483647,"keepMonthly":2147483647,"keepWeekly":2147483647},"files":{},"errorHandling":{"ignoreUnknownTypes":true},"scheduling":{"manual":true},"compression":{"compressorName":"none"},"metadataCompression":{},"splitter":{},"upload":{"maxParallelFileReads":4,"parallelUploadAboveSize":2147483648}}"#;
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
}

fn source(host: &str, user: &str, path: &str) -> SourceInfo {
    SourceInfo {
        host: host.to_owned(),
        user_name: user.to_owned(),
        path: path.to_owned(),
    }
}

#[tokio::test]
async fn the_policies_of_a_source_are_found() {
    let contents = MemoryContents::default();
    let mut manifests = Manifests::load(contents.source(), Vec::new()).await.unwrap();
    let now = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    let this = source("h", "u", "a/b/c");
    let mut set = |of: &SourceInfo, ignore: &str| {
        let mut policy = Policy::default();
        policy.files.ignore.push(ignore.to_owned());
        set_policy(&mut manifests, of, &policy, now).unwrap();
    };
    set(&source("h", "u", "a/b/c/d/e"), "below");
    set(&source("h", "other", "a/b/c"), "of somebody else");
    set(&source("h", "u", "a/b/cc"), "beside");
    let general = [
        ("", "", ""),
        ("h", "", ""),
        ("h", "u", ""),
        ("h", "u", "a"),
        ("h", "u", "a/b/c"),
    ];
    for (host, user, path) in general {
        set(&source(host, user, path), "replaced");
        set(&source(host, user, path), path.get(..1).unwrap_or(host));
    }
    manifests.flush(&contents).unwrap();
    let ignored = async |manifests: &Manifests, source: &SourceInfo| {
        let tree = effective_policy(manifests, source).await.unwrap();
        tree.root().files.ignore.clone()
    };
    assert_eq!(ignored(&manifests, &this).await, ["a"]);
    assert_eq!(ignored(&manifests, &source("h", "x", "/z")).await, ["h"]);
    assert_eq!(ignored(&manifests, &source("i", "x", "/z")).await, [""]);
    let tree = effective_policy(&manifests, &this).await.unwrap();
    let below = |path: &str| {
        let node = tree.directory(path);
        (node.policy.files.ignore.concat(), node.defined)
    };
    assert_eq!(below(""), ("a".to_owned(), true));
    assert_eq!(below("d"), ("a".to_owned(), false));
    assert_eq!(below("d/e"), ("below".to_owned(), true));
    assert_eq!(below("d/e/f"), ("below".to_owned(), false));
    assert_eq!(below("d/ee"), ("a".to_owned(), false));
    let defined = defined_policy(&manifests, &this).await.unwrap().unwrap();
    assert_eq!(defined.files.ignore, ["a"]);
    assert!(
        defined_policy(&manifests, &source("h", "u", "b"))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(PolicyTree::default().root().part_size(), Some(2 << 30));
}

/// Many stars take time in proportion to the pattern and the path, not exponential time.
#[test]
fn many_stars_end_soon() {
    let path: Vec<char> = "/a".repeat(2000).chars().collect();
    for pattern in [
        "**/a/".repeat(200) + "b",
        "*a".repeat(500) + "b",
        "a*?".repeat(300),
    ] {
        let pattern = Pattern::parse(&pattern, &chars("")).unwrap();
        let most = measure(|| assert!(!pattern.ignores(&path, false))).bytes_max;
        assert!(most < 4 << 20, "{most}");
    }
    assert!(Pattern::parse(&"a".repeat(2000), &chars("")).is_err());
}

/// A file of rules is read from a volume, so nobody knows what is in it. Deep directories have long names.
#[test]
fn many_rules_in_a_deep_directory_take_little_memory() {
    let path = "/directory".repeat(400);
    let policy = FilesPolicy {
        ignore_dot_files: vec![".kopiaignore".to_owned()],
        ..FilesPolicy::default()
    };
    let root = Arc::new(IgnoreRules::default());
    let mut rules = None;
    let most = measure(|| {
        let mut read = |_: &str| Ok(Some(b"ab\n".repeat(10_000)));
        rules = root.directory(path.as_bytes(), Some(&policy), &mut read).ok();
    })
    .bytes_max;
    assert!(most < 4 << 20, "{most}");
    let excludes = |path: &str| {
        rules.as_ref().unwrap().excludes(&Candidate {
            path: path.as_bytes(),
            directory: false,
            size: 1,
            same_device: true,
        })
    };
    assert!(excludes(&format!("{path}/ab")) && excludes(&format!("{path}/x/ab")));
    assert!(!excludes(&format!("{path}/abc")) && !excludes("/directory/ab"));
}

/// Each directory of a deep tree may have rules of its own, and all of them are held while the deepest one is read.
#[test]
fn the_rules_of_all_directories_above_are_bounded_together() {
    let policy = FilesPolicy {
        ignore_dot_files: vec![".kopiaignore".to_owned()],
        ..FilesPolicy::default()
    };
    for (file, name_length, depth) in [
        // Many short rules; long ones; sets of characters; hardly any rules, but long names of directories.
        (b"a\n".repeat(5000), 1, 10..20),
        (b"abcdefghijklmnopqrstuvwxyz0123\n".repeat(500), 1, 20..40),
        (b"[a-z0-9]\n".repeat(2000), 1, 10..40),
        (b"a\n".to_vec(), 250, 100..200),
    ] {
        let (mut rules, mut path) = (Arc::new(IgnoreRules::default()), String::new());
        let mut error = None;
        let most = measure(|| {
            while error.is_none() {
                let defined = path.is_empty().then_some(&policy);
                match rules.directory(path.as_bytes(), defined, &mut |_| Ok(Some(file.clone()))) {
                    Ok(below) => rules = below,
                    Err(refused) => error = Some(refused.to_string()),
                }
                path = format!("{path}/{}", "d".repeat(name_length));
            }
        })
        .bytes_max;
        assert!(most < 14 << 20, "{most}");
        let levels = path.len() / (name_length + 1);
        assert!(depth.contains(&levels), "{levels}");
        let refused = &path[..path.len() - name_length - 1];
        let error = error.unwrap();
        assert!(
            error.contains(&format!("{refused}/.kopiaignore: its rules and those of")),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn any_pattern_is_harmless(pattern in "[*?/a\\[\\]!:\\\\ é-]{0,40}", base in "(/[ab]){0,3}", path in "(/[abé]{1,3}){1,5}") {
        if let Ok(pattern) = Pattern::parse(&pattern, &chars(&base)) {
            pattern.ignores(&path.chars().collect::<Vec<_>>(), true);
        }
    }

    #[test]
    fn any_policy_is_harmless(text: String, data: Vec<u8>) {
        let _ = serde_json::from_str::<Policy>(&text);
        let policy = FilesPolicy { ignore_dot_files: vec![text], ..FilesPolicy::default() };
        let root = Arc::new(IgnoreRules::default());
        let _ = root.directory(b"", Some(&policy), &mut |_| Ok(Some(data.clone())));
    }
}

#[test]
fn hostile_policies_and_rules_are_harmless() {
    let policy = br#"{"retention":{"keepLatest":10},"files":{"ignore":["*.tmp","!keep"],"ignoreDotFiles":[".kopiaignore"],"noParentDotFiles":true,"ignoreCacheDirs":false,"maxFileSize":5,"oneFileSystem":true},"errorHandling":{"ignoreFileErrors":true},"scheduling":{"intervalSeconds":5},"compression":{"compressorName":"zstd","onlyCompress":[".a"],"minSize":5},"metadataCompression":{"compressorName":"none"},"splitter":{"algorithm":"FIXED-4M"},"upload":{"maxParallelFileReads":4},"noParent":true,"other":[1,{"a":null}]}"#;
    serde_json::from_slice::<Policy>(policy).unwrap();
    hostile::check(&[policy], Bound::new(8 << 10, 100), |text| {
        if let Ok(policy) = serde_json::from_slice::<Policy>(text) {
            drop(crate::json::to_vec(&policy));
        }
    });
    let rules = "# comment\r\n*.o\n!/keep/**/a?[a-z!]\n[[:alpha:][:^digit:]]\\ \n/é/**\n*a*a*a*b/\n";
    let path = b"/keep/\xc3\xa9/aaaaaaaaaaaaaaaaaaaaaaaaaaaa.o";
    hostile::check(&[rules.as_bytes()], Bound::new(16 << 10, 100), |data| {
        let policy = FilesPolicy {
            ignore_dot_files: vec![".kopiaignore".to_owned()],
            ..FilesPolicy::default()
        };
        let root = Arc::new(IgnoreRules::default());
        let rules = root.directory(b"/keep", Some(&policy), &mut |_| Ok(Some(data.to_vec())));
        if let Ok(rules) = rules {
            rules.excludes(&Candidate {
                path,
                directory: false,
                size: 5,
                same_device: true,
            });
        }
    });
}
