//! What people see with kubectl, as golden files.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_testkit::process::poll;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;

use crate::common::{KINDS, Kind};
use crate::server::Server;

struct Kubectl {
    program: PathBuf,
    server: Server,
    cache: tempfile::TempDir,
}

impl Kubectl {
    async fn start() -> Result<Self> {
        let server = Server::start().await?;
        let program = tokio::task::spawn_blocking(holdfast_testkit::local::kubectl).await??;
        let cache = tempfile::tempdir().context("cannot make a folder")?;
        Ok(Self {
            program,
            server,
            cache,
        })
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(self.server.kubeconfig)
            .arg("--cache-dir")
            .arg(self.cache.path())
            .arg("--namespace")
            .arg(&self.server.namespace)
            .args(arguments)
            .output()
            .context("cannot run kubectl")?;
        if !output.status.success() {
            bail!(
                "kubectl {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        String::from_utf8(output.stdout).context("kubectl writes UTF-8")
    }

    /// The OpenAPI document lags a little behind the definition.
    fn explain(&self, what: &str, version: &str, recursive: bool) -> Result<String> {
        let version = format!("--api-version={version}");
        let mut arguments = vec!["explain", what, &version];
        if recursive {
            arguments.push("--recursive");
        }
        let mut failure = None;
        let text = poll(Duration::from_secs(30), Duration::from_millis(200), || {
            self.run(&arguments).map_err(|error| failure = Some(error)).ok()
        });
        text.with_context(|| format!("no explanation of {what}: {failure:?}"))
    }
}

/// Names of the columns in the order of kubectl, and whether what each holds depends on the time of the test.
fn columns(kind: &Kind, wide: bool) -> Vec<(String, bool)> {
    let columns = kind.version().additional_printer_columns.unwrap_or_default();
    let shown = columns
        .into_iter()
        .filter(|column| wide || column.priority.unwrap_or(0) == 0);
    let shown = shown.map(|column| (column.name.to_uppercase(), depends_on_the_time(&column)));
    std::iter::once(("NAME".to_owned(), false)).chain(shown).collect()
}

/// Dates are shown as the time since.
fn depends_on_the_time(column: &CustomResourceColumnDefinition) -> bool {
    column.type_ == "date" || column.json_path == ".metadata.creationTimestamp"
}

/// Where the columns begin: kubectl puts three spaces between them, and a name may hold one.
fn starts(header: &str) -> Vec<usize> {
    let begins = |at: usize| at == 0 || header[..at].ends_with("  ");
    let is_text = |at: usize| !header[at..].starts_with(' ');
    (0..header.len())
        .filter(|at| is_text(*at) && begins(*at))
        .collect()
}

/// The table with what depends on the time masked, where there is something.
fn masked(table: &str, columns: &[(String, bool)]) -> Result<String> {
    let mut lines = table.lines();
    let header = lines.next().context("a header")?;
    let starts = starts(header);
    let names: Vec<_> = starts
        .iter()
        .map(|at| header[*at..].split("  ").next().unwrap_or_default().trim())
        .collect();
    if !names
        .iter()
        .copied()
        .eq(columns.iter().map(|(name, _)| name.as_str()))
    {
        bail!("columns {names:?} instead of {columns:?}");
    }
    let mut text = String::new();
    for line in std::iter::once(header).chain(lines) {
        let cells = starts.iter().enumerate().map(|(index, start)| {
            let end = starts
                .get(index + 1)
                .copied()
                .unwrap_or(line.len())
                .min(line.len());
            let cell = line.get((*start).min(end)..end).unwrap_or_default().trim();
            let dated = columns[index].1
                && line != header
                && !matches!(cell, "" | "<none>" | "<unknown>" | "<invalid>");
            if dated {
                "<time>".to_owned()
            } else {
                cell.to_owned()
            }
        });
        text += cells.collect::<Vec<_>>().join(" | ").trim_end();
        text.push('\n');
    }
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_the_columns() -> Result<()> {
    let kubectl = Kubectl::start().await?;
    for kind in KINDS {
        for object in [kind.full(), kind.minimal()] {
            kubectl
                .server
                .create_with_status(kind, &object)
                .await
                .with_context(|| kind.name)?;
        }
        let crd = kind.crd();
        let resource = format!(
            "{}.{}.{}",
            crd.spec.names.plural, crd.spec.versions[0].name, crd.spec.group
        );
        // Of a kind without namespaces other tests may have objects; these two are the same for all.
        let get = ["get", &resource, "full", "minimal"];
        let narrow = masked(&kubectl.run(&get)?, &columns(kind, false))?;
        let wide = masked(
            &kubectl.run(&[&get[..], &["--output=wide"]].concat())?,
            &columns(kind, true),
        )?;
        let text =
            format!("$ kubectl get {resource}\n{narrow}\n$ kubectl get {resource} --output=wide\n{wide}");
        insta::assert_snapshot!(format!("get_{}", kind.name.to_lowercase()), text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn short_names_and_categories_reach_the_kind() -> Result<()> {
    let kubectl = Kubectl::start().await?;
    let listed = kubectl.run(&["api-resources", "--no-headers", "--output=wide"])?;
    for kind in KINDS {
        let crd = kind.crd();
        let (names, group) = (crd.spec.names, crd.spec.group);
        let version = format!("{group}/{}", crd.spec.versions[0].name);
        let short = names.short_names.unwrap_or_default().join(",");
        let categories = names.categories.unwrap_or_default().join(",");
        let line = listed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&names.plural.as_str()) && words.contains(&version.as_str()))
            .with_context(|| format!("{} is not among the resources", kind.name))?;
        assert!(
            short.is_empty() || line.get(1) == Some(&short.as_str()),
            "{}: {line:?}",
            kind.name
        );
        assert!(
            categories.is_empty() || line.last() == Some(&categories.as_str()),
            "{}: {line:?}",
            kind.name
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_every_field() -> Result<()> {
    let kubectl = Kubectl::start().await?;
    for kind in KINDS {
        let crd = kind.crd();
        let what = &crd.spec.names.plural;
        let version = format!("{}/{}", crd.spec.group, crd.spec.versions[0].name);
        let mut text = kubectl.explain(what, &version, true)?;
        for part in ["spec", "status"] {
            text += &kubectl.explain(&format!("{what}.{part}"), &version, false)?;
        }
        let text: Vec<_> = text.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(format!("explain_{}", kind.name.to_lowercase()), text.join("\n"));
    }
    Ok(())
}
