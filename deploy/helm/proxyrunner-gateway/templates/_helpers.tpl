{{- define "gateway.fullname" -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/part-of: mcp
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "gateway.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* Settings as variables. Issuers are separated by newlines, audiences by commas. */}}
{{- define "gateway.settings" -}}
- {name: PROXYRUNNER_LISTEN, value: "[::]:8443"}
- {name: PROXYRUNNER_ADMIN_LISTEN, value: "[::]:9090"}
- {name: PROXYRUNNER_PUBLIC_URL, value: {{ .Values.publicUrl | quote }}}
- {name: PROXYRUNNER_AUTH_ISSUER, value: {{ join "\n" .Values.auth.issuers | quote }}}
- {name: PROXYRUNNER_AUTH_AUDIENCE, value: {{ join "," .Values.auth.audiences | quote }}}
- {name: PROXYRUNNER_SERVERS, value: /etc/proxyrunner/servers/servers.json}
- {name: PROXYRUNNER_GATEWAY_KEY, value: /etc/proxyrunner/keys/gateway.pem}
- {name: PROXYRUNNER_STATE_KEY_FILE, value: /etc/proxyrunner/keys/state}
- {name: PROXYRUNNER_TLS_CERT, value: /etc/proxyrunner/tls/tls.crt}
- {name: PROXYRUNNER_TLS_KEY, value: /etc/proxyrunner/tls/tls.key}
{{- if .Values.redis.url }}
- {name: PROXYRUNNER_REDIS, value: {{ .Values.redis.url | quote }}}
{{- if .Values.redis.passwordSecret }}
- {name: PROXYRUNNER_REDIS_PASSWORD_FILE, value: /etc/proxyrunner/redis/password}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.settings }}
- {name: PROXYRUNNER_{{ $name | upper | replace "-" "_" }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- if .Values.telemetry.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .Values.telemetry.endpoint | quote }}}
- {name: OTEL_SERVICE_NAME, value: {{ include "gateway.fullname" . | quote }}}
- {name: OTEL_LOGS_EXPORTER, value: otlp}
- {name: OTEL_METRICS_EXPORTER, value: none}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: OTEL_RESOURCE_ATTRIBUTES, value: "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)"}
{{- end }}
{{- end }}
