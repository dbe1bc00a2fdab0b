{{/* The release's name, with the chart's behind it unless it is there already. */}}
{{- define "doorward.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "doorward.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "doorward.labels" -}}
{{ include "doorward.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Seconds of a duration as doorward.toml writes it, rounded up. */}}
{{- define "doorward.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if not (regexMatch "^[0-9]+(ms|s|m|h)$" .) -}}
{{- fail (printf "config: %q is no duration, such as \"25s\"" .) -}}
{{- end -}}
{{- if eq $unit "ms" -}}{{ div (add $number 999) 1000 }}
{{- else if eq $unit "s" -}}{{ $number }}
{{- else if eq $unit "m" -}}{{ mul $number 60 }}
{{- else -}}{{ mul $number 3600 }}
{{- end -}}
{{- end -}}

{{/* The port of an address such as 0.0.0.0:8080. */}}
{{- define "doorward.port" -}}
{{- $port := regexFind "[0-9]+$" . -}}
{{- if or (not (regexMatch ":[0-9]+$" .)) (lt (int $port) 1) (gt (int $port) 65535) -}}
{{- fail (printf "config: %q is no address with a port, such as \"0.0.0.0:8080\"" .) -}}
{{- end -}}
{{- $port -}}
{{- end -}}

{{- define "doorward.loopback" -}}
{{- if or (hasPrefix "127." .) (hasPrefix "[::1]:" .) (hasPrefix "localhost:" .) }}yes{{ end -}}
{{- end -}}

{{/*
What Kubernetes must know of doorward.toml, as JSON: listen, probes (ports), drain (seconds), restart (a digest of what only a new
process takes up), and of its first tenant an embed key and an origin, for the notes. Refuses values that could not work; the rest is
`doorward check`'s, which runs before the gateway in every Pod.
*/}}
{{- define "doorward.facts" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository: where you pushed the image that deploy/Dockerfile builds; there is no public one" -}}
{{- end -}}
{{- if not .Values.existingSecret -}}
{{- fail "existingSecret: the name of a Secret whose keys are the files under /etc/doorward/secrets that config names; the chart makes none" -}}
{{- end -}}
{{- if not .Values.config -}}
{{- fail "config: the text of doorward.toml, as in --set-file config=doorward.toml" -}}
{{- end -}}
{{- $config := fromToml .Values.config -}}
{{- if hasKey $config "Error" -}}
{{- fail (printf "config: not TOML: %s" (get $config "Error")) -}}
{{- end -}}
{{- $server := get $config "server" | default dict -}}
{{- $listen := get $server "listen" | default "" -}}
{{- if or (not $listen) (include "doorward.loopback" $listen) -}}
{{- fail (printf "config: server.listen must be reachable from outside the Pod, such as \"0.0.0.0:8080\"; it is %q" $listen) -}}
{{- end -}}
{{- $probes := get $server "probes" | default "" -}}
{{- if or (not $probes) (include "doorward.loopback" $probes) -}}
{{- fail (printf "config: server.probes must be where the kubelet reaches it, such as \"0.0.0.0:9091\"; it is %q" $probes) -}}
{{- end -}}
{{- $admin := get $server "admin" | default "127.0.0.1:9090" -}}
{{- if not (include "doorward.loopback" $admin) -}}
{{- fail (printf "config: server.admin must stay on loopback; it is %q" $admin) -}}
{{- end -}}
{{- $ports := list (include "doorward.port" $listen) (include "doorward.port" $probes) (include "doorward.port" $admin) -}}
{{- if ne (len ($ports | uniq)) 3 -}}
{{- fail (printf "config: server.listen, probes and admin need a port each; they are %s" (join ", " $ports)) -}}
{{- end -}}
{{- $upstream := get (get $config "upstream" | default dict) "address" | default "" -}}
{{- if eq .Values.mode "sidecar" -}}
{{- $agent := .Values.agent.container | default dict -}}
{{- if not (include "doorward.loopback" $upstream) -}}
{{- fail (printf "config: in mode sidecar upstream.address is the agent on loopback, such as \"127.0.0.1:3000\"; it is %q" $upstream) -}}
{{- end -}}
{{- if has (include "doorward.port" $upstream) $ports -}}
{{- fail (printf "config: upstream.address %q is a port of the gateway" $upstream) -}}
{{- end -}}
{{- if not (get $agent "image") -}}
{{- fail "agent.container: in mode sidecar your agent's container, at least its image" -}}
{{- end -}}
{{- range $key := list "name" "ports" -}}
{{- if hasKey $agent $key -}}
{{- fail (printf "agent.container.%s: leave it out; in mode sidecar nothing but the gateway can be reached" $key) -}}
{{- end -}}
{{- end -}}
{{- if hasKey (get $agent "lifecycle" | default dict) "preStop" -}}
{{- fail "agent.container.lifecycle.preStop: the chart sets it, so that the agent outlives the gateway" -}}
{{- end -}}
{{- range $probe := list "startupProbe" "livenessProbe" "readinessProbe" -}}
{{- if and (hasKey $agent $probe) (not (hasKey (get $agent $probe) "exec")) -}}
{{- fail (printf "agent.container.%s: only exec works; the kubelet asks the Pod's address, and the agent listens on loopback" $probe) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- if include "doorward.loopback" $upstream -}}
{{- fail (printf "config: in mode gateway nothing else runs in the Pod, and upstream.address is %q" $upstream) -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.agent.podLabels) -}}
{{- fail "agent.podLabels: in mode gateway the labels of the agent's Pods, which only the gateway may reach (or networkPolicy.enabled: false)" -}}
{{- end -}}
{{- end -}}
{{- $drain := add (include "doorward.seconds" (get $server "drain_delay" | default "3s" | toString)) (include "doorward.seconds" (get $server "grace" | default "25s" | toString)) -}}
{{- $tenant := first (get $config "tenant" | default (list dict)) -}}
{{- dict
    "listen" (include "doorward.port" $listen | int)
    "probes" (include "doorward.port" $probes | int)
    "drain" $drain
    "restart" (pick $server "listen" "listener" "admin" "probes" "threads" "upgrade_socket" | toJson | sha256sum | trunc 16)
    "embed_key" (first (get $tenant "embed_keys" | default (list "")))
    "origin" (first (get $tenant "origins" | default (list "")))
  | toJson -}}
{{- end -}}

{{/* The gateway's image, and what surrounds its process. */}}
{{- define "doorward.container" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: { drop: [ALL] }
  seccompProfile: { type: RuntimeDefault }
resources: {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  # Whole, never by subPath: only then does the kubelet swap them when they change.
  - { name: config, mountPath: /etc/doorward, readOnly: true }
  - { name: secrets, mountPath: /etc/doorward/secrets, readOnly: true }
{{- end -}}
