//! Tests the effect of each variable, and that no value prevents the start.

use super::*;

fn meant(variables: &[(&str, &str)]) -> Meant {
    read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
}

/// Returns the endpoints of the three signals.
fn targets(variables: &[(&str, &str)]) -> [Option<String>; 3] {
    let export = meant(variables).export;
    let metrics = export.metrics.map(|metrics| metrics.endpoint);
    [export.traces, metrics, export.logs].map(|endpoint| endpoint.map(|endpoint| endpoint.uri.to_string()))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

const ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

#[test]
fn nothing_is_exported_without_a_collector_or_an_exporter() {
    assert_eq!(targets(&[]), [None, None, None]);
    let named = [some("http://collector:4318/v1/traces"), some("http://collector:4318/v1/metrics"), None];
    assert_eq!(targets(&[ALL]), named, "stderr has the log already");
    assert_eq!(
        targets(&[("OTEL_TRACES_EXPORTER", "otlp")]),
        [some("http://localhost:4318/v1/traces"), None, None]
    );
    assert_eq!(targets(&[ALL, ("OTEL_LOGS_EXPORTER", "otlp")])[2], some("http://collector:4318/v1/logs"));
    assert_eq!(
        targets(&[ALL, ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "prometheus")]),
        [None, None, None]
    );
    assert_eq!(targets(&[ALL, ("OTEL_SDK_DISABLED", "true")]), [None, None, None]);
    assert_eq!(targets(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "  ")]), [None, None, None], "empty is unset");
}

#[test]
fn a_signals_own_endpoint_is_used_unchanged() {
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example/custom");
    assert_eq!(
        targets(&[ALL, own, ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:1/x")]),
        [
            some("https://traces.example/custom"),
            some("http://collector:4318/v1/metrics"),
            some("http://logs:1/x")
        ]
    );
    let slash = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base/");
    assert_eq!(targets(&[slash])[0], some("http://collector:4318/base/v1/traces"));
}

#[test]
fn grpc_has_no_path_and_may_omit_the_scheme() {
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let target = |more: &[(&str, &str)]| {
        targets(&[&[grpc, ("OTEL_TRACES_EXPORTER", "otlp")], more].concat())[0].clone()
    };
    assert_eq!(target(&[]), some("http://localhost:4317/"));
    assert_eq!(target(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")]), some("https://collector:4317/"));
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
    assert_eq!(
        target(&[insecure, ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")]),
        some("http://collector:4317/")
    );
    let meant = meant(&[ALL, ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")]);
    assert_eq!(meant.export.traces.unwrap().protocol, Protocol::Http);
    assert_eq!(meant.export.metrics.unwrap().endpoint.protocol, Protocol::Grpc);
}

#[test]
fn headers_are_decoded_and_never_shown() {
    let meant = meant(&[
        ALL,
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=top%20secret, x = y,,bad"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "only=this"),
    ]);
    let traces = meant.export.traces.unwrap();
    let shown: Vec<_> =
        traces.headers.iter().map(|header| (header.name.as_str(), header.value.to_str().unwrap())).collect();
    assert_eq!(shown, [("api-key", "top secret"), ("x", "y")]);
    assert_eq!(meant.export.metrics.as_ref().unwrap().endpoint.headers.len(), 1);
    let told = format!("{traces:?} {:?} {:?}", meant.export.metrics, meant.warnings);
    assert!(!told.contains("secret") && !told.contains("this"), "{told}");
    assert_eq!(meant.warnings.len(), 1);
}

#[test]
fn every_other_variable_has_its_effect() {
    let meant = meant(&[
        ALL,
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "7000"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "3"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "DELTA"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "12"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off"),
        ("OTEL_PROPAGATORS", "tracecontext"),
    ]);
    assert_eq!(meant.warnings, [""; 0]);
    let spans = meant.spans.unwrap();
    assert_eq!(Some(spans.sampler), Sampler::named("parentbased_traceidratio", Some(0.25)));
    let delay = Duration::from_millis(100);
    assert_eq!(spans.bounds, Bounds { queued: 10, batch: 10, delay });
    assert_eq!(meant.records.unwrap(), Bounds { queued: 2_048, batch: 3, delay: Duration::from_secs(1) });
    let traces = meant.export.traces.unwrap();
    assert_eq!((traces.timeout.as_secs(), traces.patience.as_secs(), traces.gzip), (2, 7, true));
    let metrics = meant.export.metrics.unwrap();
    assert_eq!((metrics.interval.as_millis(), metrics.temporality), (1500, Temporality::Delta));
    assert_eq!(metrics.endpoint.timeout.as_secs(), 3);
    assert_eq!((meant.longest, meant.exemplars), (12, false));
    assert_eq!(meant.propagates, Propagates { context: true, baggage: false });
}

#[test]
fn the_resource_has_the_operators_attributes_and_detected_ones() {
    let resource = |variables: &[(&str, &str)]| meant(variables).export.resource;
    let value = |resource: &[(String, String)], wanted: &str| {
        let found: Vec<_> =
            resource.iter().filter(|(key, _)| key == wanted).map(|(_, value)| value.clone()).collect();
        assert_eq!(found.len(), 1, "{wanted} in {resource:?}");
        found[0].clone()
    };
    let plain = resource(&[]);
    assert_eq!(value(&plain, "service.name"), "proxyrunner");
    assert_ne!(value(&plain, "service.instance.id"), value(&resource(&[]), "service.instance.id"));
    let said = resource(&[
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=one,k8s.pod.name=p%2C1,service.instance.id=me,bad"),
        ("OTEL_SERVICE_NAME", "two"),
    ]);
    assert_eq!(value(&said, "service.name"), "two");
    assert_eq!(value(&said, "k8s.pod.name"), "p,1");
    assert_eq!(value(&said, "service.instance.id"), "me");
}

#[test]
fn invalid_values_are_reported_and_ignored() {
    let warned = |variables: &[(&str, &str)]| {
        let meant = meant(&[&[ALL, ("OTEL_LOGS_EXPORTER", "otlp")], variables].concat());
        assert!(meant.export.logs.is_some() || variables[0].0.contains("ENDPOINT"), "{variables:?}");
        meant.warnings.len()
    };
    for (variable, warnings) in [
        (("OTEL_TRACES_SAMPLER", "xray"), 1),
        (("OTEL_TRACES_SAMPLER_ARG", "2"), 1),
        (("OTEL_BSP_SCHEDULE_DELAY", "soon"), 1),
        (("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), 3),
        (("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"), 3),
        (("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "ftp://x"), 1),
        (("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "nonsense"), 1),
        (("OTEL_TRACES_EXPORTER", "zipkin"), 1),
        (("OTEL_PROPAGATORS", "b3,tracecontext"), 1),
        (("OTEL_SDK_DISABLED", "yes"), 1),
        (("OTEL_RESOURCE_ATTRIBUTES", "nonsense"), 1),
        (("OTEL_METRICS_EXEMPLAR_FILTER", "always_on"), 1),
        (("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "x"), 1),
        (("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "x"), 1),
        (("OTEL_CONFIG_FILE", "/etc/otel.yaml"), 1),
    ] {
        assert_eq!(warned(&[variable]), warnings, "{variable:?}");
    }
    let missing =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such")];
    assert_eq!(meant(&missing).warnings.len(), 2, "one per signal");
}
