//! A real Prometheus in a directory of its own, which scrapes one target once a second.

use std::net::SocketAddr;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use super::{eventually, free_port, repository, temp_dir};

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    _process: Process,
    _dir: TempDir,
    port: u16,
    client: reqwest::Client,
}

/// Starts it with the alert rules of the documents, and with these features on top.
pub async fn prometheus(target: SocketAddr, features: &str) -> Prometheus {
    let dir = temp_dir("prometheus");
    let rules = repository("docs/observability/alerts.yml");
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [\"{}\"]\n\
         scrape_configs:\n  - job_name: strangler\n    static_configs: [{{ targets: [\"{target}\"] }}]\n",
        rules.display()
    );
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, config).expect("its configuration");
    let port = free_port();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    if !features.is_empty() {
        command.arg(format!("--enable-feature={features}"));
    }
    let process = Process::start("prometheus", &command, &dir.path().join("prometheus.out"), None, Signal::KILL);
    let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let prometheus = Prometheus { _process: process, _dir: dir, port, client };
    eventually("Prometheus has scraped", || async {
        let up = prometheus.query("up").await?;
        (up.first()?["value"][1] == "1").then_some(())
    })
    .await;
    prometheus
}

impl Prometheus {
    /// Where it is asked.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a path of its API gives; `None` when it does not answer or refuses.
    pub async fn api(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let url = format!("{}/api/v1/{path}", self.url());
        let answer: Value = self.client.get(url).query(query).send().await.ok()?.json().await.ok()?;
        assert_ne!(answer["errorType"], "bad_data", "{query:?}: {answer}");
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// The samples that a query gives now.
    pub async fn query(&self, query: &str) -> Option<Vec<Value>> {
        self.api("query", &[("query", query)]).await?["result"].as_array().cloned()
    }

    /// Waits until a query gives any sample.
    pub async fn until(&self, query: &str) -> Vec<Value> {
        eventually(&format!("Prometheus has data for {query}"), || async {
            self.query(query).await.filter(|samples| !samples.is_empty())
        })
        .await
    }
}
