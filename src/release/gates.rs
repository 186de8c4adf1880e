//! Feature gates of the control plane and the kubelet that a release has locked or removed.
//!
//! Read from the tables of gates that Kubernetes 1.31 to 1.36 are built with. Of 1.37 there is only what the library of its
//! kube-apiserver (1.37.0-beta.0) and the notes of its alpha.1 show.

/// A gate that is not a choice any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// The minor from which on no other value is taken, and that value.
    pub locked: Option<(u64, bool)>,
    /// The minor from which on a component that is given it does not start.
    pub removed: Option<u64>,
}

const fn gate(name: &'static str, locked: Option<(u64, bool)>, removed: Option<u64>) -> Gate {
    Gate { name, locked, removed }
}

/// The gate of that name, if it is one of the table.
pub fn gate_of(name: &str) -> Option<&'static Gate> {
    GATES.binary_search_by(|gate| gate.name.cmp(name)).ok().and_then(|at| GATES.get(at))
}

/// By name.
#[rustfmt::skip]
static GATES: [Gate; 133] = [
    gate("APIListChunking", Some((29, true)), Some(33)),
    gate("APIServerTracing", Some((34, true)), Some(37)),
    gate("AdmissionWebhookMatchConditions", Some((30, true)), Some(33)),
    gate("AggregatedDiscoveryEndpoint", Some((30, true)), Some(33)),
    gate("AggregatedDiscoveryRemoveBetaType", Some((35, true)), None),
    gate("AllowOverwriteTerminationGracePeriodSeconds", Some((35, false)), None),
    gate("AllowServiceLBStatusOnNonLB", Some((32, false)), Some(35)),
    gate("AnonymousAuthConfigurableEndpoints", Some((34, true)), Some(37)),
    gate("AnyVolumeDataSource", Some((33, true)), Some(37)),
    gate("AppArmor", Some((31, true)), Some(33)),
    gate("AppArmorFields", Some((31, true)), Some(33)),
    gate("AuthorizeNodeWithSelectors", Some((34, true)), None),
    gate("AuthorizeWithSelectors", Some((34, true)), Some(37)),
    gate("BtreeWatchCache", Some((33, true)), Some(37)),
    gate("CPUManager", Some((26, true)), Some(33)),
    gate("CPUManagerPolicyOptions", Some((33, true)), None),
    gate("CRDValidationRatcheting", Some((33, true)), None),
    gate("CSIMigrationPortworx", Some((33, true)), Some(36)),
    gate("CSIServiceAccountTokenSecrets", Some((36, true)), None),
    gate("CloudDualStackNodeIPs", Some((31, true)), Some(32)),
    gate("ComponentSLIs", Some((32, true)), Some(35)),
    gate("ConsistentListFromCache", Some((34, true)), Some(37)),
    gate("CronJobsScheduledAnnotation", Some((32, true)), Some(35)),
    gate("CustomResourceFieldSelectors", Some((32, true)), None),
    gate("DRAAdminAccess", Some((36, true)), None),
    gate("DRAControlPlaneController", None, Some(32)),
    gate("DeclarativeValidation", Some((36, true)), None),
    gate("DeclarativeValidationTakeover", Some((37, false)), None),
    gate("DevicePluginCDIDevices", Some((31, true)), Some(34)),
    gate("DisableAllocatorDualWrite", Some((35, true)), None),
    gate("DisableCloudProviders", Some((31, true)), Some(33)),
    gate("DisableKubeletCloudCredentialProviders", Some((31, true)), Some(33)),
    gate("DisableNodeKubeProxyVersion", Some((36, true)), None),
    gate("DynamicResourceAllocation", Some((35, true)), None),
    gate("EfficientWatchResumption", Some((24, true)), Some(33)),
    gate("ElasticIndexedJob", Some((31, true)), Some(34)),
    gate("ExecProbeTimeout", Some((35, true)), None),
    gate("ExternalServiceAccountTokenSigner", Some((36, true)), None),
    gate("GitRepoVolumeDriver", Some((36, false)), None),
    gate("HPAContainerMetrics", Some((31, true)), Some(32)),
    gate("HonorPVReclaimPolicy", Some((33, true)), Some(36)),
    gate("ImageMaximumGCAge", Some((35, true)), None),
    gate("ImageVolume", Some((36, true)), None),
    gate("InPlacePodVerticalScaling", Some((35, true)), None),
    gate("InPlacePodVerticalScalingAllocatedStatus", None, Some(36)),
    gate("InTreePluginPortworxUnregister", None, Some(36)),
    gate("JobBackoffLimitPerIndex", Some((33, true)), None),
    gate("JobManagedBy", Some((35, true)), None),
    gate("JobPodFailurePolicy", Some((31, true)), Some(33)),
    gate("JobPodReplacementPolicy", Some((34, true)), None),
    gate("JobSuccessPolicy", Some((33, true)), None),
    gate("KMSv2", Some((31, true)), Some(32)),
    gate("KMSv2KDF", Some((31, true)), Some(32)),
    gate("KubeProxyDrainingTerminatingNodes", Some((31, true)), Some(33)),
    gate("KubeletCgroupDriverFromCRI", Some((34, true)), None),
    gate("KubeletFineGrainedAuthz", Some((36, true)), None),
    gate("KubeletPSI", Some((36, true)), None),
    gate("KubeletPodResourcesDynamicResources", Some((36, true)), None),
    gate("KubeletPodResourcesGet", Some((36, true)), None),
    gate("KubeletTracing", Some((34, true)), None),
    gate("LegacyServiceAccountTokenCleanUp", Some((31, true)), Some(32)),
    gate("LegacySidecarContainers", None, Some(34)),
    gate("LoadBalancerIPMode", Some((32, true)), Some(35)),
    gate("LogarithmicScaleDown", Some((31, true)), None),
    gate("MatchLabelKeysInPodAffinity", Some((33, true)), None),
    gate("MemoryManager", Some((32, true)), Some(36)),
    gate("MinDomainsInPodTopologySpread", Some((31, true)), Some(32)),
    gate("MultiCIDRServiceAllocator", Some((34, true)), None),
    gate("MutableCSINodeAllocatableCount", Some((36, true)), None),
    gate("NFTablesProxyMode", Some((33, true)), None),
    gate("NewVolumeManagerReconstruction", Some((31, true)), Some(32)),
    gate("NodeInclusionPolicyInPodTopologySpread", Some((33, true)), None),
    gate("NodeLogQuery", Some((36, true)), None),
    gate("NodeOutOfServiceVolumeDetach", Some((31, true)), Some(32)),
    gate("NodeSwap", Some((34, true)), None),
    gate("OrderedNamespaceDeletion", Some((34, true)), None),
    gate("PDBUnhealthyPodEvictionPolicy", Some((31, true)), Some(33)),
    gate("PersistentVolumeLastPhaseTransitionTime", Some((31, true)), Some(33)),
    gate("PodDisruptionConditions", Some((31, true)), Some(34)),
    gate("PodHostIPs", Some((31, true)), Some(32)),
    gate("PodIndexLabel", Some((32, true)), Some(35)),
    gate("PodLifecycleSleepAction", Some((34, true)), None),
    gate("PodLifecycleSleepActionAllowZero", Some((34, true)), None),
    gate("PodObservedGenerationTracking", Some((35, true)), None),
    gate("PodSchedulingReadiness", Some((30, true)), None),
    gate("PreferSameTrafficDistribution", Some((35, true)), None),
    gate("ProbeHostPodSecurityStandards", Some((34, true)), Some(35)),
    gate("ProcMountType", Some((36, true)), None),
    gate("RecoverVolumeExpansionFailure", Some((34, true)), None),
    gate("RecursiveReadOnlyMounts", Some((33, true)), None),
    gate("RelaxedDNSSearchValidation", Some((34, true)), None),
    gate("RelaxedEnvironmentVariableValidation", Some((34, true)), None),
    gate("RemainingItemCount", Some((29, true)), Some(33)),
    gate("ResilientWatchCacheInitialization", Some((34, true)), Some(37)),
    gate("RetryGenerateName", Some((32, true)), Some(37)),
    gate("SELinuxChangePolicy", Some((36, true)), None),
    gate("SELinuxMountReadWriteOncePod", Some((36, true)), None),
    gate("SchedulerQueueingHints", Some((34, true)), None),
    gate("SeparateCacheWatchRPC", Some((36, false)), None),
    gate("SeparateTaintEvictionController", Some((34, true)), None),
    gate("ServerSideApply", Some((31, true)), Some(32)),
    gate("ServerSideFieldValidation", Some((31, true)), Some(32)),
    gate("ServiceAccountTokenJTI", Some((32, true)), None),
    gate("ServiceAccountTokenNodeBinding", Some((33, true)), None),
    gate("ServiceAccountTokenNodeBindingValidation", Some((32, true)), None),
    gate("ServiceAccountTokenPodNodeInfo", Some((32, true)), None),
    gate("ServiceTrafficDistribution", Some((33, true)), Some(36)),
    gate("SidecarContainers", Some((33, true)), None),
    gate("SizeMemoryBackedVolumes", Some((32, true)), Some(35)),
    gate("StableLoadBalancerNodeSet", Some((31, true)), Some(32)),
    gate("StatefulSetAutoDeletePVC", Some((32, true)), Some(35)),
    gate("StatefulSetStartOrdinal", Some((31, true)), Some(34)),
    gate("StreamingCollectionEncodingToJSON", Some((34, true)), Some(37)),
    gate("StreamingCollectionEncodingToProtobuf", Some((34, true)), Some(37)),
    gate("StrictCostEnforcementForVAP", Some((32, true)), Some(35)),
    gate("StrictCostEnforcementForWebhooks", Some((32, true)), Some(35)),
    gate("StructuredAuthenticationConfiguration", Some((34, true)), Some(37)),
    gate("StructuredAuthorizationConfiguration", Some((32, true)), Some(36)),
    gate("SupplementalGroupsPolicy", Some((35, true)), None),
    gate("SystemdWatchdog", Some((35, true)), None),
    gate("TopologyAwareHints", Some((33, true)), Some(36)),
    gate("TopologyManagerPolicyOptions", Some((32, true)), None),
    gate("UserNamespacesPodSecurityStandards", None, Some(35)),
    gate("UserNamespacesSupport", Some((36, true)), None),
    gate("ValidatingAdmissionPolicy", Some((31, true)), Some(32)),
    gate("VolumeAttributesClass", Some((36, true)), None),
    gate("VolumeCapacityPriority", None, Some(33)),
    gate("WatchBookmark", Some((17, true)), Some(33)),
    gate("WatchCacheInitializationPostStartHook", Some((37, true)), None),
    gate("WatchFromStorageWithoutResourceVersion", Some((33, false)), Some(36)),
    gate("WinDSR", Some((34, true)), None),
    gate("WinOverlay", Some((34, true)), None),
    gate("ZeroLimitedNominalConcurrencyShares", Some((31, true)), Some(32)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_found_by_name_and_are_locked_before_they_go() {
        assert!(GATES.is_sorted_by(|a, b| a.name < b.name));
        for one in &GATES {
            assert_eq!(gate_of(one.name), Some(one));
            assert!(one.locked.is_some() || one.removed.is_some(), "{one:?}");
            if let (Some((locked, _)), Some(removed)) = (one.locked, one.removed) {
                assert!(locked <= removed, "{one:?}");
            }
        }
        assert_eq!(gate_of("AnyVolumeDataSource").map(|gate| gate.removed), Some(Some(37)));
        assert_eq!(gate_of("NoSuchGate"), None);
    }
}
