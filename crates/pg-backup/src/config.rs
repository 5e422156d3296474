//! What an administrator can set.

use jiff::SignedDuration;

/// Settings of the controller; `pg-backup --help` shows them.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Secret with the access data of the storage, used where a backup's annotation names none.
    /// It is looked up in the namespace of the backup: references do not cross namespaces.
    #[arg(
        long,
        env = "HOLDFAST_DEFAULT_STORAGE_SECRET",
        default_value = "pg-backup-storage"
    )]
    pub default_storage_secret: String,

    /// Image of the backup jobs; the controller's own when not given.
    #[arg(long, env = "HOLDFAST_AGENT_IMAGE")]
    pub agent_image: Option<String>,

    /// Name of the controller's own pod.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,

    /// Namespace of the controller's own pod.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: Option<String>,

    /// Labels that every pod of a PostgreSQL cluster carries, `key=value[,...]`.
    #[arg(long, env = "HOLDFAST_CLUSTER_LABELS", default_value = "application=spilo")]
    pub cluster_labels: String,

    /// Label that holds the name of the cluster.
    #[arg(long, env = "HOLDFAST_CLUSTER_NAME_LABEL", default_value = "cluster-name")]
    pub cluster_name_label: String,

    /// Label that holds the role of a member.
    #[arg(long, env = "HOLDFAST_ROLE_LABEL", default_value = "spilo-role")]
    pub role_label: String,

    /// PostgreSQL user with the REPLICATION right.
    #[arg(long, env = "HOLDFAST_REPLICATION_USER", default_value = "standby")]
    pub replication_user: String,

    /// Name of the Secret with that user's password (key `password`); `{user}` and `{cluster}` are filled in.
    #[arg(
        long,
        env = "HOLDFAST_CREDENTIALS_SECRET",
        default_value = "{user}.{cluster}.credentials.postgresql.acid.zalan.do"
    )]
    pub credentials_secret: String,

    /// Whether the connection to PostgreSQL is encrypted: disable, prefer or require.
    #[arg(long, env = "HOLDFAST_SSL_MODE", default_value = "prefer")]
    pub ssl_mode: String,

    /// How long to wait for a member of the cluster to become ready.
    #[arg(long, env = "HOLDFAST_MEMBER_TIMEOUT", default_value = "10m")]
    pub member_timeout: SignedDuration,

    /// How long a job's pod may take to start.
    #[arg(long, env = "HOLDFAST_START_TIMEOUT", default_value = "10m")]
    pub start_timeout: SignedDuration,

    /// How long a job's pod may lack something that does not come by itself, a Secret for instance.
    #[arg(long, env = "HOLDFAST_CONFIG_TIMEOUT", default_value = "30s")]
    pub config_timeout: SignedDuration,

    /// How long a backup may take.
    #[arg(long, env = "HOLDFAST_BACKUP_TIMEOUT", default_value = "24h")]
    pub backup_timeout: SignedDuration,

    /// How long one attempt to remove a backup from the storage may take.
    #[arg(long, env = "HOLDFAST_DELETE_TIMEOUT", default_value = "15m")]
    pub delete_timeout: SignedDuration,

    /// How often a running backup's progress is read.
    #[arg(long, env = "HOLDFAST_PROGRESS_INTERVAL", default_value = "5s")]
    pub progress_interval: SignedDuration,

    /// Memory limit of a backup job's pod.
    #[arg(long, env = "HOLDFAST_AGENT_MEMORY_LIMIT", default_value = "192Mi")]
    pub agent_memory_limit: String,
}

impl Config {
    /// Name of the Secret that holds the password of the replication user of `cluster`.
    pub fn credentials_secret(&self, cluster: &str) -> String {
        // Kubernetes names have no underscores; Zalando's operator replaces them in the user's name.
        let user = self.replication_user.replace('_', "-");
        self.credentials_secret
            .replace("{user}", &user)
            .replace("{cluster}", cluster)
    }

    /// Label selector of the pods of `cluster`.
    pub fn selector(&self, cluster: &str) -> String {
        format!("{},{}={cluster}", self.cluster_labels, self.cluster_name_label)
    }
}
