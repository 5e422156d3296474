//! Data to back up, and the checksums that tell whether they came back.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::kubectl::Kubectl;

/// Tables of several kinds in two databases: about 20 MB.
const SMALL: &str = include_str!("../manifests/data/small.sql");

/// Checksums of all tables: database and table to number of rows and md5 of the ordered rows' md5.
pub type Checksums = BTreeMap<String, String>;

/// A PostgreSQL server in a pod, reached as the superuser through the pod's own socket.
#[derive(Clone, Debug)]
pub struct Server<'a> {
    /// The way to the pod.
    pub kubectl: &'a Kubectl,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub pod: &'a str,
}

impl Server<'_> {
    /// Runs statements, each in a transaction of its own, and returns the rows, fields separated by `|`. Fails at the first error.
    pub async fn sql(&self, database: &str, statements: &str) -> Result<String> {
        let psql = [
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
            "-f",
            "-",
        ];
        let output = self
            .kubectl
            .exec_with_input(self.namespace, self.pod, "postgres", &psql, statements.as_bytes())
            .await
            .with_context(|| format!("psql in {}", self.pod))?;
        Ok(output.trim_end().to_owned())
    }

    /// Creates the tables of a shop and of its accounts.
    pub async fn load(&self) -> Result<()> {
        self.sql("postgres", SMALL).await.map(drop)
    }

    /// Creates a table of `megabytes` of data that no compression makes smaller.
    pub async fn load_incompressible(&self, megabytes: u32) -> Result<()> {
        // 256 digests of 32 bytes make a row; 122 rows make a megabyte.
        let rows = megabytes * 122;
        let statements = format!(
            "create table ballast (id int primary key, body bytea not null);
             alter table ballast alter body set storage external;
             insert into ballast
               select n, (select string_agg(sha256((random()::text || k || n)::bytea), '') from generate_series(1, 256) k)
               from generate_series(1, {rows}) n;
             checkpoint;"
        );
        self.sql("shop", &statements).await.map(drop)
    }

    /// The checksums of all tables of all databases. Fails when there are none.
    pub async fn checksums(&self) -> Result<Checksums> {
        let databases = self
            .sql(
                "postgres",
                "select datname from pg_database where not datistemplate",
            )
            .await?;
        let mut all = Checksums::new();
        for database in databases.lines() {
            let tables = "select format('%I.%I', schemaname, tablename) from pg_tables \
                          where schemaname not in ('pg_catalog', 'information_schema') order by 1";
            let tables = self.sql(database, tables).await?;
            let queries: Vec<String> = tables
                .lines()
                .map(|table| {
                    format!(
                        "select '{database}.{table}', count(*), md5(string_agg(hash, '' order by hash)) \
                         from (select md5(t::text) as hash from {table} t) hashes;\n"
                    )
                })
                .collect();
            let rows = self.sql(database, &queries.concat()).await?;
            all.extend(
                rows.lines()
                    .filter_map(|row| row.split_once('|'))
                    .map(|(t, sum)| (t.to_owned(), sum.to_owned())),
            );
        }
        ensure!(!all.is_empty(), "{} has no table", self.pod);
        Ok(all)
    }
}

/// What differs between the checksums before and after, one line each; empty when nothing does.
pub fn differences(before: &Checksums, after: &Checksums) -> Vec<String> {
    let tables: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let text =
        |sums: &Checksums, table: &String| sums.get(table).cloned().unwrap_or_else(|| "missing".to_owned());
    tables
        .into_iter()
        .filter(|table| before.get(*table) != after.get(*table))
        .map(|table| {
            format!(
                "{table}: {} before, {} after",
                text(before, table),
                text(after, table)
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Checksums, differences};

    fn sums(pairs: &[(&str, &str)]) -> Checksums {
        pairs
            .iter()
            .map(|(table, sum)| ((*table).to_owned(), (*sum).to_owned()))
            .collect()
    }

    #[test]
    fn each_table_that_differs_is_named() {
        let before = sums(&[("shop.a", "1|x"), ("shop.b", "2|y"), ("shop.c", "3|z")]);
        let after = sums(&[("shop.a", "1|x"), ("shop.b", "2|other"), ("shop.d", "4|w")]);
        assert!(differences(&before, &before).is_empty());
        let lines = differences(&before, &after);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], "shop.b: 2|y before, 2|other after");
        assert_eq!(lines[1], "shop.c: 3|z before, missing after");
    }
}
