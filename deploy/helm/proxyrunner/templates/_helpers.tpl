{{- define "proxyrunner.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{- define "proxyrunner.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "proxyrunner.selector" -}}
app.kubernetes.io/name: {{ include "proxyrunner.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "proxyrunner.labels" -}}
{{ include "proxyrunner.selector" . }}
app.kubernetes.io/part-of: mcp
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "proxyrunner.golden.selector" -}}
app.kubernetes.io/name: {{ include "proxyrunner.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: golden-path
{{- end }}

{{/* An image by its digest, or its tag. The argument is the image and the default tag. */}}
{{- define "proxyrunner.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 1) $image.tag }}
{{- end -}}
{{- end }}

{{- define "proxyrunner.own.image" -}}
{{ include "proxyrunner.image" (list .Values.proxyrunner.image .Chart.AppVersion) }}
{{- end }}

{{- define "proxyrunner.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "proxyrunner.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ . | int64 }}
runAsGroup: {{ . | int64 }}
fsGroup: {{ . | int64 }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Settings as variables; the sidecar's drain is over when it is stopped. */}}
{{- define "proxyrunner.settings" -}}
{{- $defaults := dict "allow-host" (printf "%s.%s" (include "proxyrunner.fullname" .) .Release.Namespace) -}}
{{- if eq .Values.shape "sidecar-pair" -}}
{{- $defaults = merge $defaults (dict "drain-delay" "0s" "drain-timeout" "1s" "max-connections" "1024") -}}
{{- else -}}
{{- $defaults = merge $defaults (dict "max-buffered" "64MiB") -}}
{{- if .Values.gateway.enabled -}}
{{/* Gateways look names up and probe each 5 s. Until then, a replica that is told to stop must serve. */}}
{{- $defaults = merge $defaults (dict "drain-delay" "10s") -}}
{{- end -}}
{{- end -}}
- {name: PROXYRUNNER_LISTEN, value: "[::]:8080"}
- {name: PROXYRUNNER_ADMIN_LISTEN, value: "[::]:9090"}
{{- range $name, $value := merge (deepCopy .Values.settings) $defaults }}
- {name: PROXYRUNNER_{{ $name | upper | replace "-" "_" }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{/* What a server behind a gateway needs, whose URL in the cluster is its audience, and what replicas need. */}}
{{- define "proxyrunner.gateway" -}}
{{- if .Values.gateway.enabled }}
{{- $url := printf "http://%s.%s.svc:%v%s" (include "proxyrunner.fullname" .) .Release.Namespace .Values.service.port (.Values.settings.path | default "/mcp") }}
- name: PROXYRUNNER_AUTH_ISSUER
  value: {{ .Values.gateway.url }}{{ with .Values.gateway.keysUrl }} jwks={{ . }}{{ end }}
- {name: PROXYRUNNER_AUTH_AUDIENCE, value: {{ $url | quote }}}
- {name: PROXYRUNNER_AUTH_RESOURCE, value: {{ $url | quote }}}
{{- if .Values.gateway.caConfigMap }}
- {name: PROXYRUNNER_AUTH_CA, value: /etc/proxyrunner/ca/ca.crt}
{{- end }}
{{- end }}
{{- if .Values.forwardSessions.enabled }}
- name: PROXYRUNNER_FORWARD_SESSIONS
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}
{{- if include "proxyrunner.state" . }}
- {name: PROXYRUNNER_STATE_KEY_FILE, value: /etc/proxyrunner/state/state}
{{- end }}
{{- if .Values.resumeSessions.enabled }}
{{- if not .Values.forwardSessions.enabled }}{{ fail "resumeSessions needs forwardSessions" }}{{ end }}
- {name: PROXYRUNNER_RESUME_SESSIONS, value: "true"}
- {name: PROXYRUNNER_REDIS, value: {{ .Values.resumeSessions.redis | quote }}}
{{- if .Values.resumeSessions.passwordSecret }}
- {name: PROXYRUNNER_REDIS_PASSWORD_FILE, value: /etc/proxyrunner/redis/password}
{{- end }}
- {name: PROXYRUNNER_SERVER_NAME, value: {{ .Release.Namespace }}/{{ include "proxyrunner.fullname" . }}}
{{- end }}
{{- end }}

{{/* The Secret with the key that replicas share; empty without one. */}}
{{- define "proxyrunner.state" -}}
{{- if .Values.forwardSessions.enabled -}}
{{- .Values.forwardSessions.stateSecret -}}
{{- else if .Values.gateway.enabled -}}
{{- .Values.gateway.stateSecret -}}
{{- end -}}
{{- end }}

{{- define "proxyrunner.gateway.mounts" -}}
{{- if and .Values.gateway.enabled .Values.gateway.caConfigMap }}
- {name: gateway-ca, mountPath: /etc/proxyrunner/ca, readOnly: true}
{{- end }}
{{- if include "proxyrunner.state" . }}
- {name: state, mountPath: /etc/proxyrunner/state, readOnly: true}
{{- end }}
{{- if and .Values.resumeSessions.enabled .Values.resumeSessions.passwordSecret }}
- {name: redis, mountPath: /etc/proxyrunner/redis, readOnly: true}
{{- end }}
{{- end }}

{{- define "proxyrunner.gateway.volumes" -}}
{{- if and .Values.gateway.enabled .Values.gateway.caConfigMap }}
- name: gateway-ca
  configMap: {name: {{ .Values.gateway.caConfigMap }}}
{{- end }}
{{- if include "proxyrunner.state" . }}
- name: state
  secret: {secretName: {{ include "proxyrunner.state" . }}, defaultMode: 0440}
{{- end }}
{{- if and .Values.resumeSessions.enabled .Values.resumeSessions.passwordSecret }}
- name: redis
  secret: {secretName: {{ .Values.resumeSessions.passwordSecret }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "proxyrunner.telemetry" -}}
{{- if .Values.telemetry.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .Values.telemetry.endpoint | quote }}}
- {name: OTEL_SERVICE_NAME, value: {{ include "proxyrunner.fullname" . | quote }}}
- {name: OTEL_LOGS_EXPORTER, value: otlp}
- {name: OTEL_METRICS_EXPORTER, value: none}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: OTEL_RESOURCE_ATTRIBUTES, value: "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)"}
{{- end }}
{{- end }}

{{- define "proxyrunner.ports" -}}
- {name: mcp, containerPort: 8080}
- {name: metrics, containerPort: 9090}
{{- end }}

{{- define "proxyrunner.probes" -}}
livenessProbe:
  httpGet: {path: /health, port: mcp}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /health/ready, port: mcp}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{/* 5 minutes, as --start-timeout. The port is a number, since it may be the sidecar's. */}}
{{- define "proxyrunner.startup" -}}
startupProbe:
  httpGet: {path: /health/startup, port: 8080}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 150
{{- end }}

{{- define "proxyrunner.copy" -}}
- name: copy-proxyrunner
  image: {{ include "proxyrunner.own.image" . | quote }}
  imagePullPolicy: {{ .Values.proxyrunner.image.pullPolicy }}
  args: [--copy-self, /opt/proxyrunner/proxyrunner]
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {cpu: 100m, memory: 32Mi}
  securityContext:
    {{- include "proxyrunner.securityContext" . | nindent 4 }}
  volumeMounts:
    - {name: proxyrunner, mountPath: /opt/proxyrunner}
{{- end }}

{{- define "proxyrunner.sidecar" -}}
- name: proxyrunner
  image: {{ include "proxyrunner.own.image" . | quote }}
  imagePullPolicy: {{ .Values.proxyrunner.image.pullPolicy }}
  restartPolicy: Always
  args: [--connect, "unix:/run/mcp/mcp.sock"]
  env:
    {{- include "proxyrunner.settings" . | nindent 4 }}
    {{- include "proxyrunner.gateway" . | nindent 4 }}
    {{- include "proxyrunner.telemetry" . | nindent 4 }}
  ports:
    {{- include "proxyrunner.ports" . | nindent 4 }}
  # No startup probe here: the kubelet starts the server only after the sidecar has started.
  {{- include "proxyrunner.probes" . | nindent 2 }}
  resources:
    {{- toYaml .Values.proxyrunner.resources | nindent 4 }}
  securityContext:
    {{- include "proxyrunner.securityContext" . | nindent 4 }}
  volumeMounts:
    - {name: socket, mountPath: /run/mcp}
    {{- include "proxyrunner.gateway.mounts" . | nindent 4 }}
{{- end }}
