//! What a new etcd makes of the cluster's version and of its data.

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{Sight, Subject};
use crate::error::chain;
use crate::etcd::{EtcdError, Minor, Server};
use crate::release::etcd_formats;

/// The versions of an etcd, of its cluster and of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Formats {
    /// Of the program.
    pub program: Option<Minor>,
    /// That of the cluster: the oldest of its members'. None where the member does not say.
    pub cluster: Option<Minor>,
    /// That of the data; None before etcd 3.6, which does not say.
    pub storage: Option<Minor>,
    /// Whether it is one of several members.
    pub several: bool,
}

/// What a member says of them.
///
/// # Errors
/// It cannot be asked.
pub async fn formats(etcd: &dyn Server) -> Result<Formats, EtcdError> {
    let (status, cluster, members) = tokio::try_join!(etcd.status(), etcd.cluster_version(), etcd.list())?;
    Ok(Formats { program: status.minor(), cluster, storage: status.storage, several: members.len() > 1 })
}

/// The cluster's version and that of the data are what the table says the new etcd makes of them.
pub fn made<'a>(subject: &'a Subject<'a>) -> BoxFuture<'a, Sight> {
    async move {
        let Some(before) = subject.parts.etcd_before else {
            return Sight::Skipped("what it was before the upgrade is not known".into());
        };
        match formats(subject.parts.etcd).await {
            Ok(now) => judge(&before, &now),
            Err(error) => Sight::Unseen(chain(&error)),
        }
    }
    .boxed()
}

/// Pure. An etcd of the same minor version leaves both alone; so does one of several members, until all are new.
fn judge(before: &Formats, now: &Formats) -> Sight {
    let Some(program) = now.program else { return Sight::Skipped("it does not say its version".into()) };
    let (cluster, storage) = etcd_formats((program.major, program.minor));
    let of = |(major, minor): (u64, u64)| Minor { major, minor };
    let may_stay = now.several || before.program == Some(program);
    let rows = [
        ("the cluster's version", now.cluster, Some(of(cluster)), before.cluster),
        ("the version of its data", now.storage, storage.map(of), before.storage),
    ];
    for (what, now, wanted, before) in rows {
        let (Some(now), Some(wanted)) = (now, wanted) else { continue };
        if now != wanted && !(may_stay && Some(now) == before) {
            return Sight::NotYet(format!("{what} is {now}, not {wanted}"));
        }
    }
    Sight::Passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats(program: &str, cluster: &str, storage: &str) -> Formats {
        let (program, cluster, storage) = (Minor::of(program), Minor::of(cluster), Minor::of(storage));
        Formats { program, cluster, storage, several: false }
    }

    #[test]
    fn a_new_minor_version_takes_the_cluster_and_the_data_along() {
        let old = formats("3.6.8", "3.6.0", "3.6.0");
        let not_yet = |why: &str| Sight::NotYet(why.to_owned());
        for (before, now, expected) in [
            (old, formats("3.7.1", "3.7.0", "3.7.0"), Sight::Passed),
            (old, formats("3.7.1", "3.6.0", "3.6.0"), not_yet("the cluster's version is 3.6, not 3.7")),
            (old, formats("3.7.1", "3.7.0", "3.6.0"), not_yet("the version of its data is 3.6, not 3.7")),
            // A member that does not serve its cluster's version.
            (old, formats("3.7.1", "", "3.7.0"), Sight::Passed),
            // Data that were on their way back stay so across a patch version.
            (formats("3.7.0", "3.7.0", "3.6.0"), formats("3.7.1", "3.7.0", "3.6.0"), Sight::Passed),
            (old, formats("3.6.9", "3.6.0", "3.5.0"), not_yet("the version of its data is 3.5, not 3.6")),
            // Before 3.6 data say nothing.
            (formats("3.4.23", "3.4.0", ""), formats("3.5.16", "3.5.0", ""), Sight::Passed),
            (
                formats("3.4.23", "3.4.0", ""),
                formats("3.5.16", "3.4.0", ""),
                not_yet("the cluster's version is 3.4, not 3.5"),
            ),
        ] {
            assert_eq!(judge(&before, &now), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn one_of_several_members_waits_for_the_others() {
        let several = |formats| Formats { several: true, ..formats };
        let old = several(formats("3.6.8", "3.6.0", "3.6.0"));
        assert_eq!(judge(&old, &several(formats("3.7.1", "3.6.0", "3.6.0"))), Sight::Passed);
        assert_eq!(judge(&old, &several(formats("3.7.1", "3.7.0", "3.7.0"))), Sight::Passed);
        let odd = judge(&old, &several(formats("3.7.1", "3.5.0", "3.6.0")));
        assert_eq!(odd, Sight::NotYet("the cluster's version is 3.5, not 3.7".into()));
    }
}
