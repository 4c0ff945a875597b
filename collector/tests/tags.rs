//! Tags of functions: filters and groups in the API, on the page and in the command line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

use common::Collector;
use common::fleet::{KINDS, batch};
use common::places::{Place, test_each_place};
use tailor_collector::clock::now_us;
use tailor_collector::store::Tenant;
use tailor_collector::tags::TagTable;

const TAGS: &str =
    "function,team,env\ncheckout-price,payments,prod\nthumbnails,media,prod\nauth,payments,test\n";

fn fleet(place: Place) -> Collector {
    let collector = Collector::start_at(place);
    for (kind, id) in KINDS.iter().zip(1..) {
        assert_eq!(collector.post_batch(&batch(kind, id, 1, 30, now_us()).encode().unwrap()).status, 200);
    }
    let file = collector.folder.path().join("tags.csv");
    std::fs::write(&file, TAGS).unwrap();
    collector.app.tags.set_file(&Tenant::default(), TagTable::read(&file).unwrap());
    collector
}

test_each_place!(
    lists_and_time_series_filter_and_group_by_tags,
    hints_name_the_functions_and_the_command_line_takes_the_same_file_of_tags,
);

fn lists_and_time_series_filter_and_group_by_tags(place: Place) {
    let collector = fleet(place);
    let get = |path: &str| {
        let response = collector.get(path);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    };
    for (query, functions) in [
        ("tag=team=payments", 2),
        ("tag=team=payments,env=prod", 1),
        ("tag=team", 3),
        ("tag=team=nobody", 0),
        // As it is typed into the search.
        ("name=tag:team%3Dpayments", 2),
        ("name=auth+tag:team%3Dpayments", 1),
    ] {
        assert_eq!(get(&format!("/v1/functions?{query}"))["matching_functions"], functions, "{query}");
        assert_eq!(
            get(&format!("/v1/series?hours=24&{query}"))["total"]["invocations"],
            30 * functions,
            "{query}"
        );
    }
    let listed = get("/v1/functions?by=tag:team");
    let groups = listed["groups"].as_array().unwrap();
    let of = |value: &str| groups.iter().find(|group| group["value"] == value).unwrap()["functions"].clone();
    assert_eq!((of("payments"), of("media"), of("")), (2.into(), 1.into(), 3.into()));
    let series = get("/v1/series?by=tag:team&hours=24");
    assert_eq!(series["groups"].as_array().unwrap().len(), 3);
    assert_eq!(get("/v1/functions/auth")["tags"], serde_json::json!({ "env": "test", "team": "payments" }));
    assert_eq!(collector.get("/v1/functions?by=tag:").status, 400);
    let page = collector.get("/?by=tag:team").text();
    assert!(page.contains("tag=team%3Dpayments") && page.contains("<option value=\"tag:env\""), "{page}");
}

fn hints_name_the_functions_and_the_command_line_takes_the_same_file_of_tags(place: Place) {
    let collector = fleet(place);
    let hints = collector.get("/v1/hints").json();
    let starved =
        hints["hints"].as_array().unwrap().iter().find(|hint| hint["code"] == "cpu-starved").unwrap();
    assert!(starved["functions"].as_u64().unwrap() >= 1 && !starved["meaning"].as_str().unwrap().is_empty());
    assert!(starved["examples"][0]["function"]["name"].is_string());
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tailor"))
            .args(arguments)
            .env("TAILOR_API_KEY", common::KEY)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let stored = collector.store_arguments();
    let tags = collector.folder.path().join("tags.csv");
    let server = format!("http://{}", collector.address);
    for command in [vec!["hints"], vec!["summary", "--tag", "team=payments", "--tag", "env=prod"]] {
        let from_folder = run(&[
            &command[..],
            &[&stored[0], &stored[1], "--tags", tags.to_str().unwrap(), "--format", "csv"],
        ]
        .concat());
        assert_eq!(from_folder, run(&[&command[..], &["--server", &server, "--format", "csv"]].concat()));
    }
}
