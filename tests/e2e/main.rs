//! A real control plane: etcd and Kubernetes from images that scripts/test.sh builds, on this machine's Docker Engine; and
//! the whole way once more on the containerd whose socket `KUBEBOOT_TEST_CRI` names.
//!
//! Run by scripts/test.sh, as root, one test at a time: those that make a control plane of their own begin and end with a
//! machine without one; the others share one, and leave it as they found it.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod addons;
mod asker;
mod bad_input;
mod certs;
mod cluster;
mod containerd;
mod daemonset;
mod engine;
mod etcd;
mod faults;
mod hostile;
mod init;
mod kubectl;
mod leases;
mod machine;
mod mirror;
mod node;
mod surge;
mod upgrade;
mod writer;

use std::process::ExitCode;
use std::time::Instant;

use libtest_mimic::{Arguments, Trial};
use machine::Shared;

/// A name and what it does. A test that is in no list is unused code, which is an error.
type Test = (&'static str, fn());

macro_rules! tests {
    ($($module:ident::$test:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($test)), $module::$test)),*]
    };
}

/// Mirrors come first: a deleted one comes back as it was only under the agent that made it.
const SHARED: &[Test] = tests![
    mirror::b078_every_static_pod_has_a_mirror_that_the_node_owns,
    mirror::b079_a_deleted_mirror_comes_back_and_the_containers_stay,
    mirror::b080_an_edited_manifest_makes_the_mirror_anew,
    mirror::b081_the_mirror_goes_after_the_containers_have_ended,
    mirror::b082_a_mirror_waits_for_its_namespace_and_follows_its_node,
    mirror::b083_statuses_converge_after_the_api_server_was_away,
    init::manifests_are_what_init_writes,
    node::the_node_outlives_its_agent_and_its_api_server,
    addons::tokens_are_made_listed_used_and_deleted_and_expire,
    addons::uploaded_certificates_are_the_very_files_and_go_with_their_token,
    kubectl::b084_kubectl_reaches_static_pods,
    kubectl::b085_the_api_of_the_node_asks_who_and_whether_he_may,
    daemonset::a_daemon_set_runs_follows_its_config_map_outlives_the_agent_and_is_deleted_in_order,
    daemonset::a_pod_that_the_node_cannot_run_is_refused_with_a_reason_that_kubectl_shows,
    certs::renewed_certificates_are_in_use_and_only_what_must_be_is_restarted,
    certs::a_renewal_that_is_killed_is_finished_by_the_next_one_and_fails_no_request,
    faults::a_killed_component_comes_back_and_nothing_is_lost,
    faults::a_killed_agent_leaves_the_control_plane_running_and_its_successor_adopts_it,
    faults::an_edited_manifest_is_run_and_a_broken_one_hurts_nothing,
    surge::one_that_does_not_ask_is_never_there_twice,
    surge::an_edit_fails_no_request_also_when_the_agent_is_killed_in_between,
    surge::a_restart_fails_no_request_also_when_the_agent_is_killed_in_between,
    surge::one_that_cannot_serve_leaves_the_old_one_serving_and_is_rolled_back,
    leases::a_leader_that_ends_is_followed_at_once_and_another_nodes_lease_is_left_alone,
    hostile::hostile_pods_do_not_change_the_health_of_the_control_plane,
];

const OWN: &[Test] = tests![
    addons::addons_are_accepted_and_a_repeat_changes_nothing,
    bad_input::every_wrong_value_is_named_and_nothing_is_written,
    bad_input::what_the_machine_does_not_allow_is_found_out_before_the_first_write,
    bad_input::a_full_disk_is_named,
    bad_input::a_component_that_crashes_ends_init_with_its_last_words,
    bad_input::two_inits_at_once_and_an_interrupted_one,
    certs::a_control_plane_comes_up_with_certificates_that_others_have_signed,
    certs::the_nodes_api_serves_the_certificate_that_an_administrator_approves,
    cluster::init_gives_the_cluster_what_joining_nodes_need,
    cluster::an_init_killed_once_converges_to_the_objects_of_an_unkilled_one,
    containerd::a_control_plane_on_containerd_is_made_used_upgraded_and_taken_away,
    etcd::an_etcd_that_has_served_stays_when_the_api_server_fails_and_no_acknowledged_write_is_lost,
    etcd::an_etcd_that_opens_the_data_and_never_serves_gives_way_to_the_copy_and_no_acknowledged_write_is_lost,
    faults::a_killed_dockerd_that_comes_back_finds_the_control_plane_running_again,
    init::init_makes_a_control_plane_and_reset_leaves_no_trace,
    init::init_killed_after_any_phase_is_finished_by_a_second_init,
    init::a_killed_init_is_reset_without_a_trace,
    init::a_dry_run_needs_no_root_and_touches_nothing,
    node::the_node_is_registered_ready_and_marked_and_comes_back_when_it_is_deleted,
    surge::an_upgrade_and_its_rollback_fail_no_request,
    upgrade::an_upgrade_replaces_every_component_and_keeps_the_data,
    upgrade::an_upgrade_to_a_broken_image_is_rolled_back_and_keeps_the_data,
    upgrade::an_upgrade_goes_on_when_its_command_or_what_carries_it_out_is_killed,
    upgrade::an_upgrade_takes_certificates_and_the_clusters_objects_along_and_a_rollback_brings_them_back,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One machine has one control plane.
    arguments.test_threads = Some(1);
    let trial = |(name, test): &Test| {
        let (name, test) = (*name, *test);
        Trial::test(name, move || {
            let begun = Instant::now();
            test();
            eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f32());
            Ok(())
        })
    };
    let ended = libtest_mimic::run(&arguments, SHARED.iter().chain(OWN).map(trial).collect());
    Shared::end();
    ended.exit_code()
}
