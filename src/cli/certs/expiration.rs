//! `kubeboot certs check-expiration`.

use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;

use super::CertFlags;
use crate::host::Paths;
use crate::host::tree::{HostTree, NoRecord};
use crate::pki::{self, Expiration};
use crate::ui::{self, Output};

/// Show when the certificates expire
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot certs check-expiration\n  \
    kubeboot certs check-expiration -o json\n\n\
    Exit codes: 0 shown, 1 any error.")]
pub struct Args {
    #[command(flatten)]
    certs: CertFlags,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// kubeadm's document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateExpirationInfo {
    api_version: &'static str,
    kind: &'static str,
    certificates: Vec<Row>,
    certificate_authorities: Vec<Row>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: &'static str,
    expiration_date: Option<String>,
    residual_time: i64,
    externally_managed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_name: Option<&'static str>,
    missing: bool,
}

/// Shows the table, or the document.
pub fn run(args: &Args, paths: &Paths) -> anyhow::Result<ExitCode> {
    let spec = args.certs.spec(paths)?;
    let now = Timestamp::now();
    let (certificates, authorities) = pki::expirations(&spec, &HostTree::new(paths.clone(), NoRecord))?;
    if args.output == Output::Text {
        ui::print(&tables(&certificates, &authorities, now))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = |all: &[Expiration]| all.iter().map(|one| row(one, now)).collect();
    let info = CertificateExpirationInfo {
        api_version: "output.kubeadm.k8s.io/v1alpha3",
        kind: "CertificateExpirationInfo",
        certificates: rows(&certificates),
        certificate_authorities: rows(&authorities),
    };
    ui::print_value(args.output, &info)?;
    Ok(ExitCode::SUCCESS)
}

fn row(one: &Expiration, now: Timestamp) -> Row {
    Row {
        name: one.name,
        expiration_date: one.at.map(|at| at.to_string()),
        residual_time: one.at.map_or(0, |at| at.as_second() - now.as_second()),
        externally_managed: one.external,
        ca_name: one.authority,
        missing: one.at.is_none(),
    }
}

/// kubeadm's two tables.
fn tables(certificates: &[Expiration], authorities: &[Expiration], now: Timestamp) -> String {
    let missing = |name: &str| format!("!MISSING! {name}");
    let yes_no = |external: bool| if external { "yes" } else { "no" }.to_owned();
    let cells = certificates.iter().map(|one| match one.at {
        Some(at) => {
            let authority = one.authority.unwrap_or_default().to_owned();
            [one.name.to_owned(), date(at), residual(at, now), authority, yes_no(one.external)]
        }
        None => [missing(one.name), String::new(), String::new(), String::new(), String::new()],
    });
    let headers = ["CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "CERTIFICATE AUTHORITY", "EXTERNALLY MANAGED"];
    let first = ui::table(headers, cells);
    let cells = authorities.iter().map(|one| match one.at {
        Some(at) => [one.name.to_owned(), date(at), residual(at, now), yes_no(one.external)],
        None => [missing(one.name), String::new(), String::new(), String::new()],
    });
    let headers = ["CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED"];
    format!("{first}\n{}", ui::table(headers, cells))
}

fn date(at: Timestamp) -> String {
    at.strftime("%b %d, %Y %H:%M UTC").to_string()
}

/// What is left, in one unit, as Kubernetes' short durations are.
fn residual(at: Timestamp, now: Timestamp) -> String {
    const UNITS: [(i64, i64, &str); 5] = [
        (60, 1, "s"),
        (3600, 60, "m"),
        (24 * 3600, 3600, "h"),
        (365 * 24 * 3600, 24 * 3600, "d"),
        (i64::MAX, 365 * 24 * 3600, "y"),
    ];
    match at.as_second() - now.as_second() {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        left => UNITS
            .iter()
            .find(|(limit, ..)| left < *limit)
            .map(|(_, unit, suffix)| format!("{}{suffix}", left / unit))
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn now() -> Timestamp {
        "2027-01-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn what_is_left_is_told_in_one_unit() {
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (59, "59s"),
            (3599, "59m"),
            (86_399, "23h"),
            (365 * 86_400 - 1, "364d"),
            (3649 * 86_400, "9y"),
        ] {
            assert_eq!(residual(now() + SignedDuration::from_secs(seconds), now()), text);
        }
    }

    #[test]
    fn the_tables_read_as_kubeadms() {
        let leaf = |name, hours: Option<i64>, external| Expiration {
            name,
            at: hours.map(|hours| now() + SignedDuration::from_hours(hours)),
            authority: Some("ca"),
            external,
        };
        let authority = Expiration { authority: None, ..leaf("ca", Some(24 * 3649), true) };
        let certificates = [leaf("admin.conf", Some(24 * 30), true), leaf("apiserver", None, false)];
        insta::assert_snapshot!(tables(&certificates, &[authority], now()), @r"
        CERTIFICATE           EXPIRES                  RESIDUAL TIME   CERTIFICATE AUTHORITY   EXTERNALLY MANAGED
        admin.conf            Jan 31, 2027 12:00 UTC   30d             ca                      yes
        !MISSING! apiserver

        CERTIFICATE AUTHORITY   EXPIRES                  RESIDUAL TIME   EXTERNALLY MANAGED
        ca                      Dec 28, 2036 12:00 UTC   9y              yes
        ");
        let json = serde_json::to_value(row(&certificates[1], now())).unwrap();
        let expected = serde_json::json!({
            "name": "apiserver", "expirationDate": null, "residualTime": 0, "externallyManaged": false, "caName": "ca",
            "missing": true,
        });
        assert_eq!(json, expected);
    }
}
