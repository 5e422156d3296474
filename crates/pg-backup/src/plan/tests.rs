use clap::Parser;
use holdfast_api::alauda_v1::{
    BackupState, PostgresBackup, PostgresBackupSpec, PostgresBackupStatus, STORAGE_ANNOTATION,
};
use holdfast_status::{Decision, StatusOf, decide};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use proptest::prelude::*;

use super::{FINALIZER, Plan, RETAIN_ANNOTATION, Step, Verdict, plan};
use crate::agent::report::{BackupReport, FailureClass, FailureReason, FailureReport, Report};
use crate::build::job::{self, Operation};
use crate::config::Config;
use crate::observe::{JobEnd, JobView, Member, New, Observed, PodView};
use crate::outcome::{Contract, outcome};
use crate::reason::Reason;

const CREATED: &str = "2026-11-21T10:00:00Z";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: Config,
}

fn config() -> Config {
    Flags::parse_from(["pg-backup"]).config
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time stamp")
}

fn after(seconds: i64) -> Timestamp {
    time(CREATED) + SignedDuration::from_secs(seconds)
}

fn backup(state: BackupState) -> PostgresBackup {
    let spec = PostgresBackupSpec {
        cluster: "accounts".into(),
        execute_node: None,
    };
    let mut backup = PostgresBackup::new("monday", spec);
    backup.metadata.namespace = Some("bank".into());
    backup.metadata.uid = Some("0a1b2c3d-0000-0000-0000-000000000000".into());
    backup.metadata.resource_version = Some("7".into());
    backup.metadata.generation = Some(1);
    backup.metadata.creation_timestamp = Some(Time(time(CREATED)));
    if state != BackupState::Accepted {
        backup.metadata.finalizers = Some(vec![FINALIZER.into()]);
        backup.status = Some(PostgresBackupStatus {
            state: Some(state),
            ..PostgresBackupStatus::default()
        });
    }
    backup
}

/// A succeeded backup whose deletion began at `CREATED`.
fn deleted(state: BackupState) -> PostgresBackup {
    let mut backup = backup(state);
    backup.metadata.deletion_timestamp = Some(Time(time(CREATED)));
    let status = backup.status.get_or_insert_default();
    status.backup_name = Some("base_000000010000000000000004".into());
    status.cluster_uid = Some("uid".into());
    status.pg_version = Some("15.14".into());
    backup
}

fn world() -> New {
    let member = |pod: &str, leader| Member {
        pod: pod.into(),
        node: Some("n1".into()),
        address: Some(format!("10.0.0.{}", u8::from(leader))),
        leader,
        ready: true,
        ..Member::default()
    };
    New {
        members: vec![member("accounts-0", true), member("accounts-1", false)],
        cluster_uid: Some("uid".into()),
        predecessor: None,
        job: None,
    }
}

fn pod() -> PodView {
    PodView {
        name: "pod".into(),
        created: time(CREATED),
        ..PodView::default()
    }
}

fn job_with(pod: PodView, end: Option<JobEnd>) -> JobView {
    let (name, uid) = ("job".into(), "job-uid".into());
    JobView {
        name,
        uid,
        ours: true,
        created: time(CREATED),
        deleting: false,
        end,
        pod: Some(pod),
    }
}

fn failed_job(reason: &str, pod: PodView) -> JobView {
    let end = JobEnd::Failed {
        reason: reason.into(),
        message: "no more".into(),
        at: Some(time(CREATED)),
    };
    job_with(pod, Some(end))
}

fn decide_on(backup: &PostgresBackup, seen: &Observed, now: Timestamp) -> Plan {
    plan(backup, seen, &config(), "image:tag", now)
}

fn started(backup: &PostgresBackup, new: New) -> Plan {
    decide_on(backup, &Observed::New(new), after(1))
}

fn watched(job: Option<JobView>, now: Timestamp) -> Plan {
    decide_on(
        &backup(BackupState::Running),
        &Observed::Running { job, progress: None },
        now,
    )
}

fn removed(backup: &PostgresBackup, delete: Option<JobView>, now: Timestamp) -> Plan {
    decide_on(
        backup,
        &Observed::Deleting {
            backup: None,
            delete,
            namespace_terminating: false,
        },
        now,
    )
}

/// The reason of a plan that ends in failure, with no further write.
fn failure(plan: &Plan) -> (Reason, &str) {
    match &plan.verdict {
        Verdict::Failed(reason, message) | Verdict::DeleteFailed(reason, message) => (*reason, message),
        other => panic!("{other:?} is no failure"),
    }
}

fn created_job(plan: &Plan) -> &k8s_openapi::api::batch::v1::Job {
    let job = plan.steps.iter().find_map(|step| match step {
        Step::CreateJob(job) => Some(job.as_ref()),
        _ => None,
    });
    job.expect("a job")
}

fn args(plan: &Plan) -> Vec<String> {
    let spec = created_job(plan)
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref())
        .expect("a pod");
    spec.containers[0].args.clone().expect("arguments")
}

#[test]
fn a_new_backup_starts_a_job_at_the_replica() {
    let plan = started(&backup(BackupState::Accepted), world());
    assert_eq!(
        plan.steps[0],
        Step::AddFinalizer,
        "nothing is stored before the finalizer stands"
    );
    let job = created_job(&plan);
    assert_eq!(job.name_any(), "monday-backup-0a1b2c3d");
    let args = args(&plan);
    for expected in [
        "--host=10.0.0.0",
        "--alternate-host=10.0.0.1",
        "--scope-path=spilo/accounts/uid/wal",
    ] {
        assert!(args.iter().any(|arg| arg == expected), "{expected} in {args:?}");
    }
    assert_eq!(
        plan.verdict,
        Verdict::Started {
            member: "accounts-1".into(),
            cluster_uid: "uid".into()
        }
    );
}

#[test]
fn the_job_has_no_token_and_takes_secrets_by_reference_only() {
    let plan = started(&backup(BackupState::Accepted), world());
    let pod = created_job(&plan)
        .spec
        .clone()
        .and_then(|spec| spec.template.spec)
        .expect("a pod");
    assert_eq!(pod.automount_service_account_token, Some(false));
    for variable in pod.containers[0].env.iter().flatten() {
        assert!(
            variable.value.is_none() && variable.value_from.is_some(),
            "{}",
            variable.name
        );
    }
}

#[test]
fn a_member_that_knows_its_scope_decides_the_path() {
    let mut new = world();
    for member in &mut new.members {
        member.scope_prefix = Some("bank-".into());
        member.scope_suffix = Some("/other".into());
    }
    let args = args(&started(&backup(BackupState::Accepted), new));
    assert!(
        args.contains(&"--scope-path=spilo/bank-accounts/other/wal".to_owned()),
        "{args:?}"
    );
}

#[test]
fn bad_input_fails_and_names_the_field() {
    let mut odd = backup(BackupState::Accepted);
    odd.spec.cluster = "a/../b".into();
    let plan = started(&odd, world());
    assert!(matches!(failure(&plan), (Reason::InvalidCluster, m) if m.contains("spec.cluster")));

    for (reference, part) in [
        ("other/secret", "namespace \"other\""),
        ("No Name", "\"No Name\""),
        ("", "\"\""),
    ] {
        let mut odd = backup(BackupState::Accepted);
        odd.annotations_mut()
            .insert(STORAGE_ANNOTATION.into(), reference.into());
        let plan = started(&odd, world());
        let (reason, message) = failure(&plan);
        assert_eq!(reason, Reason::InvalidStorageReference);
        assert!(
            message.contains(STORAGE_ANNOTATION) && message.contains(part),
            "{message}"
        );
    }
}

#[test]
fn an_unknown_cluster_fails_and_a_member_that_is_not_ready_is_awaited() {
    let plan = started(&backup(BackupState::Accepted), New::default());
    assert!(matches!(failure(&plan), (Reason::ClusterNotFound, m) if m.contains("cluster-name=accounts")));

    let mut new = world();
    new.members.iter_mut().for_each(|member| member.ready = false);
    let waiting = started(&backup(BackupState::Accepted), new.clone());
    assert!(
        matches!(waiting.verdict, Verdict::Waiting(Reason::WaitingForMember, _)) && waiting.again.is_some()
    );
    let overdue = decide_on(&backup(BackupState::Accepted), &Observed::New(new), after(601));
    assert_eq!(failure(&overdue).0, Reason::NoReadyMember);
}

#[test]
fn a_second_backup_of_a_cluster_waits_for_the_first() {
    let plan = started(
        &backup(BackupState::Accepted),
        New {
            predecessor: Some("sunday".into()),
            ..world()
        },
    );
    assert!(matches!(&plan.verdict, Verdict::Waiting(Reason::Queued, m) if m.contains("sunday")));
    assert!(plan.steps.is_empty());
}

#[test]
fn a_job_of_somebody_else_is_not_adopted() {
    let job = JobView {
        ours: false,
        ..job_with(pod(), None)
    };
    let plan = started(
        &backup(BackupState::Accepted),
        New {
            job: Some(job),
            ..world()
        },
    );
    assert_eq!(failure(&plan).0, Reason::JobNameTaken);
}

#[test]
fn only_a_complete_job_with_a_good_answer_succeeds() {
    let good = PodView {
        report: Some(Report::Succeeded(BackupReport::default())),
        ..pod()
    };
    let plan = watched(Some(job_with(good.clone(), Some(JobEnd::Complete))), after(9));
    assert!(matches!(plan.verdict, Verdict::Succeeded(_)));
    let still_running = watched(Some(job_with(good, None)), after(9));
    assert!(matches!(still_running.verdict, Verdict::Running(_)));
    let silent = watched(Some(job_with(pod(), Some(JobEnd::Complete))), after(9));
    assert_eq!(failure(&silent).0, Reason::AgentLost);
}

#[test]
fn every_way_a_job_can_fail_has_its_own_cause() {
    let answer = Report::Failed(FailureReport {
        reason: FailureReason::BucketNotFound,
        message: "bucket \"b\" does not exist".into(),
        class: FailureClass::Invalid,
        retry: false,
    });
    let killed = |reason: &str| PodView {
        terminated: Some((reason.into(), 137)),
        ..pod()
    };
    let none = JobView {
        pod: None,
        ..failed_job("BackoffLimitExceeded", pod())
    };
    let table = [
        (
            Some(failed_job(
                "PodFailurePolicy",
                PodView {
                    report: Some(answer),
                    ..pod()
                },
            )),
            "BucketNotFound",
        ),
        (
            Some(failed_job("BackoffLimitExceeded", killed("OOMKilled"))),
            "OutOfMemory",
        ),
        (Some(failed_job("DeadlineExceeded", pod())), "DeadlineExceeded"),
        (
            Some(failed_job("BackoffLimitExceeded", killed("Error"))),
            "AgentLost",
        ),
        (Some(none), "AgentLost"),
        (
            Some(JobView {
                deleting: true,
                ..job_with(pod(), None)
            }),
            "JobDeleted",
        ),
        (None, "JobDeleted"),
    ];
    for (job, expected) in table {
        assert_eq!(failure(&watched(job, after(9))).0.as_str(), expected);
    }
}

#[test]
fn a_pod_that_cannot_start_fails_in_time_and_takes_its_job_along() {
    let blocked = |reason: &str| PodView {
        blocked: Some((reason.into(), "secret \"x\" not found".into())),
        ..pod()
    };
    let config_error = Some(job_with(blocked("CreateContainerConfigError"), None));
    assert!(matches!(
        watched(config_error.clone(), after(29)).verdict,
        Verdict::Running(_)
    ));
    let plan = watched(config_error, after(31));
    assert!(matches!(failure(&plan), (Reason::JobNotStarted, m) if m.contains("secret \"x\" not found")));
    assert!(matches!(plan.steps[..], [Step::DeleteJob { .. }]));

    let pull = Some(job_with(blocked("ImagePullBackOff"), None));
    assert!(matches!(
        watched(pull.clone(), after(599)).verdict,
        Verdict::Running(_)
    ));
    assert_eq!(failure(&watched(pull, after(601))).0, Reason::JobNotStarted);
}

#[test]
fn a_terminal_object_is_left_alone() {
    for state in [
        BackupState::Succeeded,
        BackupState::Failed,
        BackupState::DeleteFailed,
    ] {
        let plan = decide_on(&backup(state), &Observed::Settled, after(1));
        assert_eq!(plan, Plan::settled());
    }
}

#[test]
fn deletion_removes_the_data_before_the_object_goes() {
    let backup = deleted(BackupState::Succeeded);
    let plan = removed(&backup, None, after(1));
    assert_eq!(created_job(&plan).name_any(), "monday-delete-0a1b2c3d");
    assert!(args(&plan).contains(&"--path=spilo/accounts/uid/wal/15".to_owned()));
    assert!(!plan.steps.contains(&Step::DropFinalizer));

    let plan = removed(&backup, Some(job_with(pod(), Some(JobEnd::Complete))), after(1));
    assert_eq!(plan.steps, [Step::DropFinalizer]);
}

#[test]
fn a_failed_removal_is_told_and_tried_again_after_a_growing_pause() {
    let backup = deleted(BackupState::Succeeded);
    let early = removed(&backup, Some(failed_job("BackoffLimitExceeded", pod())), after(5));
    assert!(matches!(early.verdict, Verdict::DeleteFailed(..)) && early.steps.is_empty());
    assert_eq!(early.again, Some(SignedDuration::from_secs(10)));
    let later = removed(
        &backup,
        Some(failed_job("BackoffLimitExceeded", pod())),
        after(20),
    );
    assert!(matches!(later.steps[..], [Step::DeleteJob { .. }]));
    let much_later = super::remove::pause(&backup, after(400));
    assert_eq!(much_later, SignedDuration::from_secs(100));
    assert_eq!(
        super::remove::pause(&backup, after(100_000)),
        SignedDuration::from_mins(10)
    );
}

#[test]
fn a_running_job_is_stopped_before_its_data_is_removed() {
    let seen = Observed::Deleting {
        backup: Some(job_with(pod(), None)),
        delete: None,
        namespace_terminating: false,
    };
    let plan = decide_on(&deleted(BackupState::Running), &seen, after(1));
    assert!(matches!(plan.steps[..], [Step::DeleteJob { .. }]));
    assert_eq!(plan.verdict, Verdict::Deleting);
}

#[test]
fn data_stays_where_it_should_or_must() {
    let mut retained = deleted(BackupState::Succeeded);
    retained
        .annotations_mut()
        .insert(RETAIN_ANNOTATION.into(), "true".into());
    let plan = removed(&retained, None, after(1));
    assert!(matches!(plan.verdict, Verdict::Released(Reason::DataRetained, _)));

    let seen = Observed::Deleting {
        backup: None,
        delete: None,
        namespace_terminating: true,
    };
    let plan = decide_on(&deleted(BackupState::Succeeded), &seen, after(1));
    assert!(matches!(plan.verdict, Verdict::Released(Reason::DataRetained, _)));

    let mut empty = deleted(BackupState::Failed);
    empty.status.get_or_insert_default().backup_name = None;
    assert_eq!(removed(&empty, None, after(1)).steps, [Step::DropFinalizer]);
}

#[test]
fn names_of_jobs_are_label_values_and_the_same_in_every_pass() {
    let mut long = backup(BackupState::Accepted);
    long.metadata.name = Some(format!("{}.{}", "a".repeat(46), "b".repeat(100)));
    let name = job::name(&long, Operation::Backup);
    assert!(name.len() <= 63 && name.ends_with("a-backup-0a1b2c3d"), "{name}");
}

prop_compose! {
    fn any_job()(
        ours in any::<bool>(),
        deleting in any::<bool>(),
        end in prop_oneof![
            Just(None),
            Just(Some(JobEnd::Complete)),
            Just(Some(JobEnd::Failed { reason: "BackoffLimitExceeded".into(), message: String::new(), at: None })),
        ],
        report in prop_oneof![Just(None), Just(Some(Report::Deleted)), Just(Some(Report::Succeeded(BackupReport::default())))],
        blocked in prop_oneof![Just(None), Just(Some(("CreateContainerConfigError".to_owned(), "why".to_owned())))],
        has_pod in any::<bool>(),
    ) -> JobView {
        let pod = PodView { blocked, report, ..pod() };
        JobView { ours, deleting, pod: has_pod.then_some(pod), ..job_with(PodView::default(), end) }
    }
}

prop_compose! {
    fn any_seen()(
        job in proptest::option::of(any_job()),
        delete in proptest::option::of(any_job()),
        members in 0..3_usize,
        queued in any::<bool>(),
        terminating in any::<bool>(),
        kind in 0..3,
    ) -> Observed {
        match kind {
            0 => {
                let all = world();
                let members = all.members.into_iter().take(members).collect();
                let predecessor = queued.then(|| "other".to_owned());
                Observed::New(New { members, predecessor, job, cluster_uid: all.cluster_uid })
            }
            1 => Observed::Running { job, progress: None },
            _ => Observed::Deleting { backup: job, delete, namespace_terminating: terminating },
        }
    }
}

fn state_for(seen: &Observed) -> BackupState {
    match seen {
        Observed::Settled | Observed::Deleting { .. } => BackupState::Succeeded,
        Observed::New(_) => BackupState::Accepted,
        Observed::Running { .. } => BackupState::Running,
    }
}

proptest! {
    /// Whatever is seen, stale and missing reads included: a plan that ends in no terminal state looks again, and what
    /// it wants of the status is a legal edge.
    #[test]
    fn no_plan_leaves_an_object_in_progress_for_ever(seen in any_seen(), seconds in 0..100_000_i64) {
        let backup = match &seen {
            Observed::Deleting { .. } => deleted(BackupState::Succeeded),
            other => backup(state_for(other)),
        };
        let plan = decide_on(&backup, &seen, after(seconds));
        let ends = matches!(plan.verdict, Verdict::Succeeded(_) | Verdict::Failed(..) | Verdict::Released(..));
        prop_assert!(ends || plan.again.is_some(), "{plan:?}");
        if let Some(wanted) = outcome(&backup, "secret", &plan.verdict, after(seconds)) {
            let generation = backup.metadata.generation;
            let decision = decide::<Contract>(&backup, &wanted, generation, after(seconds));
            prop_assert!(!matches!(decision, Decision::Refused(_)), "{:?} refused from {:?}", plan.verdict, Contract::phase(backup.status.as_ref()));
        }
    }

    /// Twice the same plan from the same sight: a pass that is cut off is repeated without harm.
    #[test]
    fn a_plan_depends_on_nothing_but_its_arguments(seen in any_seen(), seconds in 0..100_000_i64) {
        let backup = backup(state_for(&seen));
        prop_assert_eq!(decide_on(&backup, &seen, after(seconds)), decide_on(&backup, &seen, after(seconds)));
    }
}
