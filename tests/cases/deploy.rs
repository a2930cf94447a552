//! The files in `deploy/` are valid for Kubernetes and SpinKube, agree with each other, and pass
//! arguments that the program accepts.

use crate::harness::program::{orchestrator, texts};
use crate::harness::repository;
use orchestrator::archive::location::ArchiveLocation;
use orchestrator::run::shutdown::IMMEDIATE_MAX;
use prefix_tar::limits::LINEAR_MEMORY_BYTES_MAX;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

fn folder() -> PathBuf {
    repository().join("deploy")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("a file")
}

/// The documents of a file, as a cluster reads them.
fn documents(name: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(name)).expect("YAML")
}

/// The only document of a file.
fn document(name: &str) -> Value {
    let mut documents = documents(name);
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

/// Kubernetes' schema of a kind. It is closed to unknown fields, as `kubectl apply` is.
fn schema_of(kind: &str) -> Value {
    let definition = match kind {
        "SpinApp" => {
            let schema = include_str!("../harness/spinapp.schema.json");
            return serde_json::from_str(schema).expect("JSON");
        }
        "Job" | "CronJob" => format!("io.k8s.api.batch.v1.{kind}"),
        "HorizontalPodAutoscaler" => format!("io.k8s.api.autoscaling.v2.{kind}"),
        "Deployment" => format!("io.k8s.api.apps.v1.{kind}"),
        "Service" | "ServiceAccount" => format!("io.k8s.api.core.v1.{kind}"),
        kind => panic!("there is no schema of {kind}"),
    };
    let schema = include_str!("../harness/kubernetes-1.33.schema.json");
    let mut schema: Value = serde_json::from_str(schema).expect("JSON");
    schema["$ref"] = format!("#/$defs/{definition}").into();
    schema
}

fn faults(document: &Value) -> Vec<String> {
    let schema = schema_of(document["kind"].as_str().expect("a kind"));
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let faults = validator.iter_errors(document);
    faults
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect()
}

#[test]
fn every_file_for_a_cluster_is_valid() {
    let mut kinds = Vec::new();
    for entry in std::fs::read_dir(folder()).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("a name");
        if name.ends_with(".yaml") {
            for document in documents(name) {
                assert_eq!(faults(&document), Vec::<String>::new(), "{name}");
                kinds.push(document["kind"].as_str().expect("a kind").to_owned());
            }
        }
    }
    kinds.sort_unstable();
    let expected = [
        "CronJob",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Job",
        "Service",
        "ServiceAccount",
        "SpinApp",
        "SpinApp",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn a_word_that_is_misspelt_or_a_value_of_another_type_is_found() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 7] = [
        ("spinapp.yaml", |app| {
            app["spec"]["enableAutoscaling"] = json!(true)
        }),
        ("spinapp.yaml", |app| {
            app["spec"]["resources"]["limit"] = json!({})
        }),
        ("spinapp.yaml", |app| app["spec"]["replicas"] = json!("4")),
        ("job.yaml", |job| job["spec"]["backOffLimit"] = json!(3)),
        ("job.yaml", |job| {
            job["spec"]["template"]["spec"]["containers"][0]["args"][0] = json!(1);
        }),
        ("serve.yaml", |deployment| {
            deployment["spec"]["template"]["spec"]["containers"][0]["readinessprobe"] = json!({});
        }),
        ("cronjob.yaml", |cronjob| {
            cronjob["spec"]
                .as_object_mut()
                .expect("a spec")
                .remove("schedule");
        }),
    ];
    for (name, change) in changes {
        let mut document = documents(name).remove(0);
        change(&mut document);
        assert_ne!(faults(&document), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_job_is_what_the_cron_job_starts_and_both_spin_apps_are_one() {
    let (job, cronjob) = (document("job.yaml"), document("cronjob.yaml"));
    assert_eq!(job["spec"], cronjob["spec"]["jobTemplate"]["spec"]);

    let mut fixed = document("spinapp.yaml");
    let mut autoscaled = documents("spinapp-autoscaled.yaml").remove(0);
    for (app, field) in [
        (&mut fixed, "replicas"),
        (&mut autoscaled, "enableAutoscaling"),
    ] {
        let removed = app["spec"].as_object_mut().expect("a spec").remove(field);
        assert!(removed.is_some(), "{field}");
    }
    assert_eq!(fixed, autoscaled);
    let scaled = &documents("spinapp-autoscaled.yaml")[1]["spec"]["scaleTargetRef"];
    assert_eq!(scaled["name"], fixed["metadata"]["name"]);
}

/// The arguments of the job's container.
fn arguments() -> Vec<String> {
    let job = document("job.yaml");
    let arguments = &job["spec"]["template"]["spec"]["containers"][0]["args"];
    serde_json::from_value(arguments.clone()).expect("texts")
}

#[test]
fn the_job_s_arguments_are_understood_and_name_the_service_and_the_secret_that_are_there() {
    // Nothing is at these places here, so it ends with the first thing that it needs.
    let run = orchestrator().args(arguments()).output().expect("it runs");
    let printed = texts(&run);
    assert_eq!(run.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("cannot read the token file /run/secrets/prefix-tar/token"),
        "{printed}"
    );

    let joined = arguments().join(" ");
    let app = document("spinapp.yaml");
    let service = format!(
        "http://{}.default.svc.cluster.local",
        app["metadata"]["name"].as_str().expect("a name")
    );
    assert!(joined.contains(&service), "{joined}");
    let pod = &document("job.yaml")["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["volumeMounts"][0]["mountPath"],
        "/run/secrets/prefix-tar"
    );
    assert_eq!(
        pod["volumes"][0]["secret"]["secretName"],
        "prefix-tar-token"
    );
    assert_eq!(
        pod["serviceAccountName"],
        document("service-account.yaml")["metadata"]["name"]
    );
    let to = arguments()
        .iter()
        .find_map(|argument| argument.strip_prefix("--to=").map(str::to_owned));
    let to: ArchiveLocation = to.expect("a destination").parse().expect("a destination");
    assert!(matches!(to, ArchiveLocation::Bucket(_)), "{to}");
}

#[test]
fn the_pod_is_not_killed_before_the_program_has_stopped() {
    let grace = arguments()
        .iter()
        .find_map(|argument| argument.strip_prefix("--grace=").map(str::to_owned));
    let grace: u64 = grace.expect("a grace").parse().expect("seconds");
    let job = document("job.yaml");
    let period = job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
    let needed = Duration::from_secs(grace) + IMMEDIATE_MAX;
    assert!(Duration::from_secs(period.expect("seconds")) > needed);
}

#[test]
fn no_container_has_more_than_it_needs() {
    let job = document("job.yaml");
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(
        container["securityContext"]["allowPrivilegeEscalation"],
        false
    );
    assert_eq!(
        container["securityContext"]["capabilities"]["drop"],
        json!(["ALL"])
    );
    for (what, resources) in [
        ("the job", &container["resources"]),
        (
            "the component",
            &document("spinapp.yaml")["spec"]["resources"],
        ),
    ] {
        assert!(resources["limits"]["memory"].is_string(), "{what}");
    }
    let limits = &document("spinapp.yaml")["spec"];
    assert_eq!(limits["resources"]["limits"]["memory"], "64Mi");
    // The operator refuses an invocation that may have more than its pod; and the module's own maximum is this.
    assert_eq!(limits["invocationLimits"]["memory"], "8Mi");
    assert_eq!(LINEAR_MEMORY_BYTES_MAX, 8 * 1024 * 1024);
}

#[test]
fn the_server_is_probed_where_it_listens_and_its_cache_fits_into_its_memory() {
    let [deployment, service] = documents("serve.yaml").try_into().expect("two documents");
    let pod = &deployment["spec"]["template"];
    assert_eq!(
        deployment["spec"]["selector"]["matchLabels"],
        pod["metadata"]["labels"]
    );
    assert_eq!(service["spec"]["selector"], pod["metadata"]["labels"]);
    let account = document("service-account.yaml");
    assert_eq!(
        pod["spec"]["serviceAccountName"],
        account["metadata"]["name"]
    );
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(
        service["spec"]["ports"][0]["targetPort"],
        container["ports"][0]["name"]
    );
    for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(
            container[probe]["httpGet"]["port"],
            container["ports"][0]["name"]
        );
    }
    let arguments: Vec<String> = serde_json::from_value(container["args"].clone()).expect("texts");
    let value = |option: &str| {
        let found = arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(option));
        found.unwrap_or_else(|| panic!("no {option}")).to_owned()
    };
    let port = container["ports"][0]["containerPort"].to_string();
    assert!(value("--listen=").ends_with(&format!(":{port}")));
    let cache_mib = value("--cache-bytes=").parse::<u64>().expect("bytes") / (1024 * 1024);
    let memory = container["resources"]["limits"]["memory"]
        .as_str()
        .expect("a limit");
    let memory_mib: u64 = memory
        .strip_suffix("Mi")
        .expect("MiB")
        .parse()
        .expect("a number");
    // Connections and the indices of all prefixes need about as much as the cache may have here.
    assert!(
        memory_mib >= 2 * cache_mib + 128,
        "{memory_mib} MiB for {cache_mib} MiB"
    );
}

#[test]
fn the_unit_for_systemd_starts_the_program_with_arguments_that_it_accepts() {
    let unit = text("prefix-tar-serve.service");
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let mut words = command.expect("a command").split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/orchestrator"));
    let served = orchestrator().args(words).output().expect("it runs");
    let printed = texts(&served);
    // There is no such archive on a machine that runs tests.
    assert_eq!(served.status.code(), Some(1), "{printed}");
    assert!(printed.contains("/srv/pwned is not a folder"), "{printed}");
}

/// The instructions of the Containerfile, with continued lines joined.
fn instructions() -> Vec<Vec<String>> {
    let text = text("Containerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[test]
fn the_container_copies_what_is_there_and_starts_what_it_copies_as_nobody_in_particular() {
    let instructions = instructions();
    let mut in_place = String::new();
    for instruction in &instructions {
        let [name, arguments @ .., last] = instruction.as_slice() else {
            panic!("{instruction:?} is no instruction");
        };
        if name == "COPY" && !arguments[0].starts_with("--from=") {
            for source in arguments {
                assert!(repository().join(source).exists(), "{source} is copied");
            }
        } else if name == "COPY" {
            in_place.clone_from(last);
        }
    }
    let last = |name: &str| {
        let found = instructions
            .iter()
            .rfind(|instruction| instruction[0] == name);
        found.unwrap_or_else(|| panic!("there is no {name}"))[1..].join(" ")
    };
    assert_eq!(last("ENTRYPOINT"), format!("[\"{in_place}\"]"));
    assert_eq!(last("USER"), "65532:65532");
    assert_eq!(last("FROM"), "gcr.io/distroless/cc-debian12:nonroot");
    let pod = &document("job.yaml")["spec"]["template"]["spec"]["securityContext"];
    assert_eq!(
        (&pod["runAsUser"], &pod["runAsGroup"]),
        (&json!(65532), &json!(65532))
    );
}

/// The libraries that a distroless `cc` image has, besides the loader.
const DISTROLESS_LIBRARIES: [&str; 3] = ["libc.so.6", "libgcc_s.so.1", "libm.so.6"];

#[test]
fn the_program_needs_no_library_that_the_container_does_not_have() {
    let program = orchestrator().get_program().to_owned();
    let listed = Command::new("ldd").arg(program).output().expect("ldd");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let libraries = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let needed: Vec<&str> = libraries
        .filter(|library| !library.contains("ld-linux") && !library.starts_with("linux-vdso"))
        .collect();
    assert!(!needed.is_empty(), "{listed}");
    for library in needed {
        assert!(
            DISTROLESS_LIBRARIES.contains(&library),
            "{library} is needed"
        );
    }
}

#[test]
fn old_archives_are_deleted_and_nothing_else_is() {
    let lifecycle: Value = serde_json::from_str(&text("lifecycle.json")).expect("JSON");
    let rules = lifecycle["rule"].as_array().expect("rules");
    let [rule] = rules.as_slice() else {
        panic!("one rule");
    };
    assert_eq!(rule["action"], json!({ "type": "Delete" }));
    // Longer than three months, and only where the archives are.
    assert!(rule["condition"]["age"].as_u64().expect("days") > 92);
    let to = arguments().join(" ");
    let path = rule["condition"]["matchesPrefix"][0]
        .as_str()
        .expect("a path");
    assert!(to.contains(&format!("/{path}{{month}}")), "{to}");
}
