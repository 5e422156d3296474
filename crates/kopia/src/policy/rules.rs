//! Which files are left out.

use std::sync::Arc;

use super::document::FilesPolicy;
use super::pattern::Pattern;
use crate::error::{KopiaError, KopiaResult};
use crate::json;

/// What the rules that hold in a directory may take in memory, those of the directories above included. Files of rules come
/// from a volume, and each directory of a deep tree may have one. These are some 14,000 rules of 30 characters.
const MAX_MEMORY: usize = 8 << 20;

/// The name of the file that marks a directory as a cache.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// What it begins with; see <https://bford.info/cachedir/>.
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The rules of one directory for what is in it, with those of the directories above. Like kopia's `.kopiaignore`:
/// the rules above decide first, those below may take it back.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    above: Option<Arc<IgnoreRules>>,
    /// Names of files that hold patterns.
    dot_files: Vec<String>,
    patterns: Vec<Pattern>,
    /// Bytes that the patterns here and above take.
    memory: usize,
    max_file_size: i64,
    one_file_system: bool,
}

/// An entry of a directory of which it is to be decided whether it is left out.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its path from the root, with a leading slash.
    pub path: &'a [u8],
    /// Whether it is a directory.
    pub directory: bool,
    /// Its bytes; 0 for directories.
    pub size: u64,
    /// Whether it is on the device that its directory is on.
    pub same_device: bool,
}

impl IgnoreRules {
    /// The rules for what is in a directory. `self` are those of the directory above it (the default for the root),
    /// `path` is its path from the root with a leading slash (empty for the root), and `policy` the policy of this very
    /// directory, which the root always has.
    ///
    /// `read` reads a file of the directory, following symbolic links; none if there is none, or it is neither a file
    /// nor a link.
    ///
    /// # Errors
    ///
    /// [`Argument`](KopiaError::Argument) names the file of a rule that makes no sense, or with which the rules that hold in
    /// the directory take more than 8 MiB of memory. Errors of `read` are handed on.
    pub fn directory(
        self: &Arc<Self>,
        path: &[u8],
        policy: Option<&FilesPolicy>,
        read: &mut dyn FnMut(&str) -> KopiaResult<Option<Vec<u8>>>,
    ) -> KopiaResult<Arc<Self>> {
        let names = policy.map_or(&self.dot_files, |policy| &policy.ignore_dot_files);
        let mut files = Vec::new();
        for name in names {
            if let Some(data) = read(name)? {
                files.push((name, data));
            }
        }
        if files.is_empty() && policy.is_none() {
            return Ok(self.clone());
        }
        let mut rules = Self {
            above: Some(self.clone()),
            dot_files: names.clone(),
            patterns: Vec::new(),
            memory: self.memory,
            max_file_size: self.max_file_size,
            one_file_system: self.one_file_system,
        };
        let base = Base::new(path);
        if let Some(policy) = policy {
            rules.apply(policy, &base)?;
        }
        for (name, data) in files {
            for line in lines(&data) {
                rules.add(&line, &base, &|| format!("{}/{name}", base.text))?;
            }
        }
        rules.patterns.shrink_to_fit();
        Ok(Arc::new(rules))
    }

    fn apply(&mut self, policy: &FilesPolicy, base: &Base) -> KopiaResult<()> {
        if policy.max_file_size != 0 {
            self.max_file_size = policy.max_file_size;
        }
        self.one_file_system = policy.one_file_system.unwrap_or(false);
        for rule in &policy.ignore {
            self.add(rule, base, &|| "the policy's rules".to_owned())?;
        }
        Ok(())
    }

    fn add(&mut self, rule: &str, base: &Base, place: &dyn Fn() -> String) -> KopiaResult<()> {
        let pattern = Pattern::parse(rule, &base.characters).map_err(|problem| KopiaError::Argument {
            name: "ignore rule",
            problem: format!("{rule:?} of {}: {problem}", place()),
        })?;
        if self.patterns.is_empty() {
            // All rules of a directory share its path.
            self.memory += size_of_val(&*base.characters);
        }
        self.memory += pattern.memory();
        if self.memory > MAX_MEMORY {
            return Err(KopiaError::Argument {
                name: "ignore rules",
                problem: format!(
                    "{}: its rules and those of the directories above take more than {MAX_MEMORY} bytes of memory",
                    place()
                ),
            });
        }
        self.patterns.push(pattern);
        Ok(())
    }

    /// Whether an entry of the directory is left out.
    pub fn excludes(&self, entry: &Candidate<'_>) -> bool {
        let too_long = u64::try_from(self.max_file_size).is_ok_and(|max| max > 0 && entry.size > max);
        let elsewhere = self.one_file_system && !entry.same_device;
        too_long
            || elsewhere
            || (self.has_patterns() && self.ignores(&characters(entry.path), entry.directory))
    }

    fn has_patterns(&self) -> bool {
        !self.patterns.is_empty() || self.above.as_ref().is_some_and(|above| above.has_patterns())
    }

    fn ignores(&self, path: &[char], directory: bool) -> bool {
        let above = self
            .above
            .as_ref()
            .is_some_and(|above| above.ignores(path, directory));
        self.patterns.iter().fold(above, |ignored, pattern| {
            // Only a pattern that could change the answer is asked.
            if ignored == pattern.negated {
                pattern.ignores(path, directory)
            } else {
                ignored
            }
        })
    }
}

impl FilesPolicy {
    /// The name of the file that marks a directory as a cache to be taken for empty, if such directories are to be;
    /// [`is_cache_tag`] tells whether it is genuine.
    pub fn cache_tag(&self) -> Option<&'static str> {
        self.ignore_cache_dirs.unwrap_or(true).then_some(CACHE_TAG)
    }
}

/// Whether the beginning of a file (43 bytes suffice) makes its directory a cache.
pub fn is_cache_tag(data: &[u8]) -> bool {
    data.starts_with(CACHE_SIGNATURE)
}

/// The patterns in a file.
fn lines(data: &[u8]) -> impl Iterator<Item = String> {
    let line = |line: &[u8]| json::replace_invalid(line.strip_suffix(b"\r").unwrap_or(line));
    let lines = data.split(|byte| *byte == b'\n').map(line);
    lines.filter(|line| !line.starts_with('#') && !line.trim().is_empty())
}

/// The directory that rules are in: its path, with a leading slash.
struct Base {
    text: String,
    characters: Arc<[char]>,
}

impl Base {
    fn new(path: &[u8]) -> Self {
        let text = json::replace_invalid(path);
        let characters = text.chars().collect();
        Self { text, characters }
    }
}

/// As kopia sees a path: what is not UTF-8 is U+FFFD.
fn characters(path: &[u8]) -> Vec<char> {
    json::replace_invalid(path).chars().collect()
}
