//! The rows. One is `NUMBER "behaviour" [module::test] .remarks();`.

use super::Row;
use crate::{
    api, defaults, devices, ends, fields, files, lifecycle, measures, pods_api, probes, restarts, telling, url, volumes,
};

macro_rules! rows {
    ($($number:literal $text:literal $([$module:ident::$test:ident])? $(.$remark:ident($($word:expr),*))*;)*) => {
        /// Every behaviour, by number.
        pub const ROWS: &[Row] = &[
            $(Row::new($number, $text)
                $(.test(stringify!($test), |node| Box::pin($module::$test(node))))?
                $(.$remark($($word),*))*),*
        ];
    };
}

/// The whole way on containerd, in one end-to-end test.
const ON_CONTAINERD: &str = "a_control_plane_on_containerd_is_made_used_upgraded_and_taken_away";

rows! {
    1 "A manifest that is in the directory before the agent starts runs, as `NAME-NODE`."
        [files::b001_a_manifest_that_is_there_before_the_start_runs];
    2 "A manifest that is written into an empty directory runs at once, without waiting for the next list."
        [files::b002_a_manifest_that_is_written_runs_without_waiting_for_a_list];
    3 "A path that is missing is no reason to end: no pods are told, and they start once it is there."
        [files::b003_a_path_that_is_missing_holds_no_pods_until_it_is_there];
    4 "A single file of garbage is logged and told, and nothing runs from it."
        [files::b004_a_single_file_of_garbage_is_told_and_runs_nothing];
    5 "One bad manifest among two good ones hurts neither."
        [files::b005_a_bad_manifest_among_good_ones_hurts_none];
    6 "A file whose name begins with a dot is ignored."
        [files::b006_a_file_whose_name_begins_with_a_dot_is_ignored];
    7 "A file in a directory below is ignored."
        [files::b007_a_file_in_a_directory_below_is_ignored];
    8 "A manifest without an ending, or ending in `.bak`, runs."
        [files::b008_a_file_without_a_manifests_ending_is_ignored]
        .different("only `.yaml`, `.yml` and `.json` are read, so that no backup of a manifest runs beside it");
    9 "A link to a manifest elsewhere runs; a change of its target is seen at the next list."
        [files::b009_a_link_to_a_manifest_runs_and_its_target_is_followed].seconds(5);
    10 "A renamed manifest ends its pod, and a pod with another UID starts."
        [files::b010_a_renamed_manifest_ends_its_pod_and_starts_another];
    11 "An edited manifest is replaced exactly once, by what it says now."
        [files::b011_an_edited_manifest_is_replaced_exactly_once];
    12 "A manifest that is written under a dot name and renamed is one update without an error."
        [files::b012_a_manifest_renamed_into_place_is_one_update_without_an_error];
    13 "A manifest of 10 MiB or more is refused."
        [files::b013_a_manifest_of_ten_mebibytes_is_refused];
    14 "JSON and YAML forms of a pod make the same pod."
        [files::b014_the_same_pod_in_json_is_the_same_pod];
    15 "Of two YAML documents in a file only the first runs."
        [files::b015_of_two_documents_only_the_first_runs].note("and the agent says so");
    16 "PodList, List, Deployment and every other kind are refused in a file."
        [files::b016_lists_and_other_kinds_are_refused_in_files];
    17 "Of two files with the same namespace and name one pod runs, the last file's by name; it is left alone."
        [files::b017_of_two_files_with_one_pod_one_runs_and_stays];
    18 "A pod whose manifest stays invalid is stopped at the next list; others stay."
        [files::b018_a_manifest_that_turns_invalid_keeps_its_pod]
        .different("it keeps the last good pod and says so: a slip of the pen must not stop a control plane");
    19 "A removed directory ends every pod in it."
        [files::b019_a_directory_that_is_removed_keeps_its_pods]
        .different("its pods stay, whether it goes whole, as an unmounted disk, or file by file, as by `rm -r`");
    20 "Touch, chmod and edits of white space restart nothing."
        [files::b020_touch_chmod_and_white_space_restart_nothing];
    21 "A single Pod as the body of a URL runs, with `config.source` http and without the NoExecute toleration."
        [url::b021_a_pod_of_a_url_runs_as_one_of_http];
    22 "Every pod of a PodList body runs."
        [url::b022_every_pod_of_a_list_runs];
    23 "Headers of `staticPodURLHeader` are sent with all their values."
        [url::b023_headers_are_sent_with_all_their_values];
    24 "A 404, a timeout and a refused connection keep the running pods."
        [url::b024_errors_of_the_url_keep_its_pods].seconds(13);
    25 "An empty 200 body ends the pods of the URL."
        [url::b025_an_empty_body_ends_the_urls_pods];
    26 "A wrong apiVersion, volume name, repeated volume or container name refuses the body."
        [url::b026_an_invalid_body_is_refused_whole];
    27 "An unchanged body changes nothing."
        [url::b027_an_unchanged_body_changes_nothing];
    28 "Node `Node1` makes pod `a` to `a-node1`; a pod's name in upper case is refused."
        [defaults::b028_the_nodes_name_in_lower_case_ends_the_pods];
    29 "The UID is the same at each load and after a restart; another path or node gives another."
        [defaults::b029_the_uid_is_the_same_until_content_path_or_node_differ];
    30 "A UID in the manifest is the pod's UID and its `config.hash`."
        [defaults::b030_a_uid_in_the_manifest_is_kept];
    31 "The namespace is `default`, or the manifest's."
        [defaults::b031_the_namespace_is_default_or_the_manifests];
    32 "A file's pod gets the NoExecute toleration, phase Pending, restartPolicy Always, 30 s and ClusterFirst."
        [defaults::b032_a_files_pod_gets_the_kubelets_defaults];
    33 "Image `x` and `x:latest` are always pulled, `x:1` if it is not there."
        [defaults::b033_the_pull_policy_follows_the_tag];
    34 "References to objects of the API (secrets, config maps, service accounts, claims, ...) are refused."
        [defaults::b034_references_to_the_apis_objects_are_refused];
    35 "Ephemeral containers are refused."
        [defaults::b035_ephemeral_containers_are_refused];
    36 "A container's own restartPolicy is accepted in a pod with Never."
        [defaults::b036_a_containers_own_restart_policy_overrides_the_pods];
    37 "A pod with 20 s of grace that ignores SIGTERM keeps running for 19 s after its manifest is gone, and then goes."
        [lifecycle::b037_a_deleted_pod_keeps_its_grace_period].seconds(22);
    38 "The same pod edited: the old one keeps its grace, and only then the new one starts."
        [lifecycle::b038_an_edited_pod_keeps_its_grace_period_before_its_successor_starts].seconds(22);
    39 "300 edits during a termination end in one start, of the last version."
        [lifecycle::b039_of_300_edits_during_a_termination_the_last_runs];
    40 "A manifest removed and put back identically runs again with restartCount 1, and stays."
        [lifecycle::b040_a_manifest_put_back_identically_runs_again].seconds(38);
    41 "A container on the host's network with a fixed port is replaced under another name without a clash."
        [lifecycle::b041_a_renamed_container_takes_the_port_over_without_a_clash];
    42 "A runtime that stops during a termination and comes back finds the pod gone soon after its grace."
        [lifecycle::b042_a_runtime_that_comes_back_finds_the_pod_gone_after_its_grace].seconds(30);
    43 "An agent that is killed and started again changes no container and no restart count."
        [lifecycle::b043_a_killed_agent_leaves_containers_and_restart_counts_alone];
    44 "A manifest removed while the agent was down: its containers go when it starts."
        [lifecycle::b044_a_manifest_removed_while_the_agent_was_down_ends_its_pod];
    45 "A removed init container is told Completed with 0 after a restart of the agent, and does not run again."
        [lifecycle::b045_a_removed_init_container_is_told_completed_and_not_run_again];
    46 "A sidecar that was removed runs again after a restart of the agent."
        [lifecycle::b046_a_removed_sidecar_runs_again];
    47 "A killed pause container makes a new sandbox (attempt + 1) and every container anew."
        [lifecycle::b047_a_killed_pause_container_rebuilds_the_pod];
    48 "A container that is killed or removed by hand is restarted at once, restartCount + 1."
        [lifecycle::b048_a_container_killed_or_removed_by_hand_is_restarted];
    49 "preStop runs before SIGTERM and its time is part of the grace."
        [lifecycle::b049_a_pre_stop_hook_runs_before_sigterm_and_within_the_grace].seconds(12);
    50 "terminationGracePeriodSeconds 0 means SIGKILL after 2 s."
        [lifecycle::b050_a_grace_of_zero_is_two_seconds];
    51 "A pod whose volumes cannot be unmounted starts again after they could."
        [lifecycle::b051_a_volume_that_somebody_uses_holds_no_successor_back]
        .note("a volume in use is detached at once, so that nothing waits for it");
    52 "Pods are replaced as ever while the API server is down."
        [api::b052_without_its_api_server_the_agent_replaces_pods_as_ever];
    53 "After a restart of the agent with the API server down, edited and removed pods are not acted on."
        [api::b053_a_restarted_agent_acts_without_its_api_server]
        .different("file pods need only their files, so that a broken API server's own manifest can be mended");
    54 "A crashing container starts 0, 10, 20, 40 ... 300 s after its exits and shows CrashLoopBackOff."
        [restarts::b054_a_crashing_container_is_started_after_0_10_and_20_seconds].seconds(35);
    55 "A container that ran for more than ten minutes restarts at once."
        .unit("ten_minutes_of_running_are_forgiven");
    56 "OnFailure and exit 0 is Succeeded without a restart; Never and exit 1 is Failed."
        [restarts::b056_a_pod_that_has_ended_is_succeeded_or_failed];
    57 "A failing init container is retried under Always, no main one starts; under Never the pod is Failed."
        [restarts::b057_a_failing_init_container_holds_the_main_ones_back];
    58 "The container after a sidecar waits for the sidecar's startup probe."
        [restarts::b058_the_container_after_a_sidecar_waits_for_its_startup_probe];
    59 "A failing exec, http, tcp or grpc liveness probe restarts the container; restartCount only grows."
        [probes::b059_each_kind_of_failing_liveness_probe_restarts].seconds(15);
    60 "A passing liveness probe and a redirect to another host restart nothing; a failing local redirect does."
        [probes::b060_success_and_foreign_redirects_restart_nothing];
    61 "An exec probe that outlasts timeoutSeconds fails."
        [probes::b061_an_exec_probe_that_takes_too_long_fails];
    62 "Liveness waits for the startup probe and acts afterwards; a failing startup probe restarts."
        [probes::b062_liveness_waits_for_the_startup_probe];
    63 "A readiness probe is not asked before its initialDelay and never restarts."
        [probes::b063_a_readiness_probe_waits_for_its_initial_delay_and_never_restarts];
    64 "A probe's own terminationGracePeriodSeconds overrides the pod's."
        [probes::b064_a_probes_own_grace_overrides_the_pods];
    65 "An HTTPS probe takes a self-signed certificate; requests are sent by `kube-probe/`."
        [probes::b065_an_https_probe_takes_a_self_signed_certificate];
    66 "A terminating pod's readiness probe goes on and turns it not ready; liveness is off."
        [probes::b066_a_terminating_pod_turns_not_ready_and_is_not_asked_whether_it_lives].seconds(10);
    67 "Policy Never without the image is ErrImageNeverPull; an unknown image ErrImagePull, then ImagePullBackOff."
        [fields::b067_images_that_are_not_there_are_told_as_the_kubelet_does];
    68 "runAsNonRoot with an image of root's is CreateContainerConfigError."
        [fields::b068_roots_image_under_run_as_non_root_is_a_config_error];
    69 "hostPath types create what is missing (0755, 0644), or keep the pod in ContainerCreating with FailedMount."
        [fields::b069_host_path_types_make_or_demand_what_they_say];
    70 "Args `$(A) $(B) $$(A)` with only A set reach the process as `val $(B) $(A)`."
        [fields::b070_arguments_are_expanded_from_what_is_set];
    71 "fieldRefs give the suffixed name, the UID and the addresses."
        [fields::b071_field_refs_give_the_pods_names_and_addresses];
    72 "hostAliases are in /etc/hosts; a container that mounts its own keeps it."
        [fields::b072_host_aliases_are_in_the_hosts_file];
    73 "system-node-critical means oom_score_adj -997; Burstable without a memory request 999."
        [fields::b073_the_oom_score_follows_priority_and_quality_of_service];
    74 "Logs are at the kubelet's two paths, and rotated."
        [fields::b074_logs_are_at_the_kubelets_paths_and_rotated].seconds(16)
        .on_containerd("the agent rotates them, every `containerLogMonitorInterval`; Docker does it by itself");
    75 "`docker ps` shows `k8s_POD_..._0` and `k8s_<container>_..._<n>`."
        [fields::b075_the_runtime_has_the_kubelets_names]
        .on_containerd("CRI's records have the same names, without `k8s_` and `POD_`");
    76 "Of a termination message of 5000 bytes 4096 are told."
        [fields::b076_a_termination_message_is_cut_at_4096_bytes];
    77 "Under DiskPressure a static system-node-critical pod is not evicted."
        [fields::b077_a_full_disk_is_told_and_evicts_nothing]
        .different("nothing is ever evicted, whatever its priority; a full disk is told instead");
    78 "A mirror pod exists, its annotations match, and the Node owns it."
        .cluster("b078_every_static_pod_has_a_mirror_that_the_node_owns");
    79 "A deleted mirror is made anew; the containers stay."
        .cluster("b079_a_deleted_mirror_comes_back_and_the_containers_stay")
        .cluster_on_containerd(ON_CONTAINERD);
    80 "An edit of the manifest makes the mirror anew."
        .cluster("b080_an_edited_manifest_makes_the_mirror_anew")
        .cluster_on_containerd(ON_CONTAINERD);
    81 "The mirror goes after the containers have ended."
        .cluster("b081_the_mirror_goes_after_the_containers_have_ended");
    82 "Without a Node object or a namespace there is no mirror, but the pod runs."
        [api::b082_a_pod_runs_without_a_node_and_a_namespace]
        .cluster("b082_a_mirror_waits_for_its_namespace_and_follows_its_node");
    83 "Statuses converge after the API server was down, without restarts."
        [api::b083_an_api_server_that_comes_and_goes_restarts_nothing]
        .cluster("b083_statuses_converge_after_the_api_server_was_away");
    84 "kubectl's logs, exec, attach and port-forward reach the container."
        .cluster("b084_kubectl_reaches_static_pods")
        .cluster_on_containerd(ON_CONTAINERD);
    85 "Port 10250 answers 401 and 403 to who may not; `/healthz` on 10248 answers ok to everyone."
        [api::b085_healthz_answers_ok_to_everyone]
        .cluster("b085_the_api_of_the_node_asks_who_and_whether_he_may");
    86 "`/pods` lists the static pod with its live status, until its manifest is gone."
        [api::b086_pods_lists_live_statuses_until_the_manifest_is_gone];
    87 "A finished pod is Running until its sidecars have ended, and tells their exit codes and messages."
        [ends::b087_a_pod_runs_until_its_sidecars_have_ended];
    88 "At activeDeadlineSeconds a pod is Running until its containers have ended, then Failed: DeadlineExceeded."
        [ends::b088_a_pod_whose_time_is_over_runs_until_its_containers_have_ended].seconds(8);
    89 "Under OnFailure a container that its own probe condemned starts again though it ends with 0."
        [ends::b089_what_its_probe_condemns_is_started_again_whatever_it_ends_with];
    90 "A ready pod stays ready when the agent is restarted, until its readiness probe says otherwise."
        [ends::b090_a_ready_pod_stays_ready_under_the_next_agent_until_its_probe_says_otherwise].seconds(10);
    91 "A termination message that comes from the log has no newline that the log has not."
        [ends::b091_a_message_from_the_log_is_the_log];
    100 "A key that is taken out of a ConfigMap or Secret, and an optional object that is deleted, go from the volume."
        [volumes::b100_what_is_taken_back_goes_from_the_volumes];
    101 "A missing ConfigMap or hostPath is FailedMount, without a sandbox and without a Pulled event."
        [volumes::b101_a_pod_that_waits_for_its_volumes_has_nothing_yet];
    102 "Volumes of a pod that has ended are unmounted and removed at its end."
        [volumes::b102_memory_of_a_pod_that_has_ended_is_given_back];
    103 "Sysctls that are neither safe nor in allowedUnsafeSysctls fail the pod with SysctlForbidden."
        [volumes::b103_sysctls_are_set_where_they_are_safe_or_allowed];
    104 "A pod that asks for AppArmor on a machine without it fails with AppArmor."
        [volumes::b104_a_profile_of_app_armor_needs_a_machine_that_has_it];
    105 "A memory emptyDir has mode 1777, and 3777 with an fsGroup."
        [volumes::b105_memory_has_the_mode_and_group_that_the_kubelet_gives_it];
    106 "setHostnameAsFQDN gives up to 64 characters, also without a clusterDomain; a host name is cut at 63."
        [volumes::b106_a_host_name_may_have_its_domain_where_it_fits];
    107 "An ephemeral container runs once in a running pod, among the processes of its target."
        [volumes::b107_an_ephemeral_container_sees_its_targets_processes];
    113 "A crash is told as `Back-off restarting failed container C in pod P_NS(UID)`, and waits with `back-off 10s ...`."
        [telling::b113_crashes_are_told_in_the_kubelets_words].seconds(20);
    114 "A probe that fails or is late, and the stop for it, are told in the kubelet's words."
        [telling::b114_probes_and_stops_are_told_in_the_kubelets_words].seconds(10);
    115 "InspectFailed, ErrImageNeverPull and `MountVolume.SetUp failed for volume` are told as the kubelet does."
        [telling::b115_images_and_volumes_that_fail_are_told_in_the_kubelets_words];
    116 "Metrics count static pods apart, and have what cgroups count of a container and what the runtime is asked."
        [telling::b116_metrics_tell_static_pods_apart_and_what_containers_use];
    117 "/configz prints every field of the configuration; written back as `--config` it changes nothing."
        .unit("what_is_read_changed_in_one_field_and_written_back_changes_that_field_alone");
    118 "A namespace that is gone holds up no other event; 25 events of each type may come at once."
        .unit("a_namespace_that_is_gone_or_forbidden_holds_up_no_event_and_is_asked_once_for_each");
    119 "Starting, NodeReady and NodeHasSufficientMemory, ... are events of the Node."
        .unit("a_condition_is_told_when_it_turns_and_the_pressures_at_each_start");
    120 "An API server is asked by `kubelet/...`, which is the field manager of what is written."
        .unit("an_api_server_is_asked_by_a_kubelet");
    121 "With the gate PodsAPI pods are listed, got and watched on pods-api/pods-api.sock; without it there is none."
        [pods_api::b121_pods_are_listed_got_and_watched_on_a_socket_of_their_own];
    122 "/flagz has every flag with its value; it and /statusz are objects of config.k8s.io for who asks for them."
        .unit("flags_are_an_object_for_who_asks_for_one");
    123 "A static pod that is put back while it ends is counted in kubelet_restarted_pods_total with static=\"true\"."
        [telling::b123_pods_that_begin_again_are_counted_by_where_they_come_from];
    125 "Starts of pods, their workers, lists, volumes and sandboxes are timed under the kubelet's names; pages are well-formed."
        [measures::b125_starts_workers_lists_and_volumes_are_timed];
    126 "/stats/summary has volumes, rootfs, logs, ephemeral storage, pressure, system containers and image file systems."
        [measures::b126_the_summary_has_volumes_logs_waits_and_system_containers];
    127 "/metrics/cadvisor has the cgroups around containers, their open files and sockets, and the machine's file system."
        [measures::b127_cadvisors_page_has_what_is_around_containers_and_what_they_have_open];
    128 "/metrics/resource has what is swapped out of the node, pods and containers."
        [measures::b128_the_resource_page_has_swap];
    129 "Killed at the end of a container that its probe condemned, a kubelet goes by the exit code: 0 is done."
        [ends::b129_what_a_probe_condemned_is_started_again_by_the_next_agent]
        .different("it is written down that the container was condemned, and it starts again").seconds(8);
    130 "The mirror of an edited pod stays as it was at the edit until the old containers have ended."
        .unit("the_mirror_of_a_pod_that_was_edited_is_told_how_its_containers_end")
        .different("it is told how they end, so that nobody sends requests to what has ended");
    131 "What has passed its startup probe has done so under the next agent too, and is not asked again."
        [ends::b131_what_has_started_stays_so_under_the_next_agent].seconds(10);
    132 "Events of one object, type and reason are combined into one that counts from the tenth message on."
        .unit("events_that_differ_by_their_messages_alone_are_combined_into_one_that_counts");
    133 "A container without a limit has that of its pod (`spec.resources`), which asks for what its containers do."
        .unit("a_container_without_a_limit_has_that_of_its_pod");
    134 "The status says what the pod asks for and may use as a whole, and whom containers run as where CRI says it."
        .unit("a_status_says_what_is_mounted_and_given_and_which_image_runs");
    135 "Device plugins register at device-plugins/kubelet.sock; what they list is capacity and allocatable of the Node at once."
        .unit("the_nodes_resources_follow_the_devices_of_a_plugin_at_once");
    136 "A watch of devices that fails is not begun again: allocatable is 0 at once, and capacity after five minutes."
        .unit("a_watch_that_fails_leaves_the_capacity_and_is_not_begun_again");
    137 "A pod is given the devices that it asks for before it runs, or has failed with UnexpectedAdmissionError."
        .unit("a_bound_pod_is_given_devices_and_fails_where_there_are_none");
    138 "Which container has which device is in kubelet_internal_checkpoint, with the kubelet's checksum, for the next agent."
        .unit("the_checksum_is_the_kubelets_and_a_file_that_was_changed_is_not_used");
    139 "A container that asks for a device has its files, variables and mounts; the agent after this one leaves it there."
        [devices::b139_a_container_has_the_device_that_it_asks_for_and_the_next_pod_has_none];
}
