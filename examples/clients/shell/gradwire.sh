# Functions that call a gradwire server with buf curl, jq and coreutils. Source this file from bash.
#
# The environment variables GRADWIRE_ADDRESS, GRADWIRE_TOKEN and GRADWIRE_CA specify the server. GRADWIRE_CA names a
# file of trusted certificates and turns on TLS. Without --schema, buf would ask the server for its .proto files in each
# call.

shell_client=$(dirname "${BASH_SOURCE[0]}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0
max_failures=8

if [ -n "${GRADWIRE_CA:-}" ]; then
    server=https://$GRADWIRE_ADDRESS transport=(--cacert "$GRADWIRE_CA")
else
    server=http://$GRADWIRE_ADDRESS transport=(--http2-prior-knowledge)
fi

# call_once METHOD [OPTION...]: makes one attempt. If it fails, $scratch/error contains the error as JSON.
call_once() {
    buf curl --protocol grpc "${transport[@]}" --schema "$shell_client/../../../proto" \
        --header "Authorization: Bearer ${token-${GRADWIRE_TOKEN-}}" "$server/$1" "${@:2}" 2> "$scratch/error"
}

# call METHOD [OPTION...]: makes a call with one response, and retries it while the server is unavailable.
call() {
    until call_once "$@" > "$scratch/response"; do
        pause_if_unavailable || return 1
    done
    failures=0
    cat "$scratch/response"
}

# pause_if_unavailable: after a failed attempt, waits if the error is temporary, and fails otherwise. buf reports a
# broken connection as unavailable or, while it sends a stream, as canceled.
pause_if_unavailable() {
    failures=$((failures + 1))
    if [ "$failures" = "$max_failures" ] || ! grep -qE '"code": "(unavailable|canceled)"' "$scratch/error"; then
        failures=0
        return 1
    fi
    sleep "0.$((failures > 4 ? 9 : 2 * failures))"
}

# detail TYPE: prints a detail of the last error, google.rpc.ErrorInfo or google.rpc.BadRequest, as JSON.
detail() {
    jq -r --arg type "$1" '.details[]? | select(.type == $type).value | . + ["", "", "==", "="][length % 4]' \
        "$scratch/error" | base64 -d |
        buf convert "$shell_client/error_details.proto" --type "$1" --from - --to -#format=json
}

# describe: prints a complete description of the last error, in one line.
describe() {
    local info
    info=$(detail google.rpc.ErrorInfo) || info={}
    jq -r --argjson info "$info" '"\(.code) \($info.reason // ""): \(.message)"
        + ($info.metadata // {} | to_entries | map(" \(.key)=\(.value)") | join(""))' "$scratch/error" ||
        cat "$scratch/error"
}

digest() { sha256sum "$1" | cut -d ' ' -f 1; }

# reference FILE SIZE...: prints a reference to a byte tensor, which consists of its type, its shape and its digest.
reference() {
    jq -nc --arg sha256 "$(digest "$1")" \
        '{dtype: "DATA_TYPE_UINT8", $sha256, shape: ($ARGS.positional | map(tonumber))}' --args "${@:2}"
}

find_missing() {
    call gradwire.v1.TensorService/FindMissingTensors -d "{\"tensors\": [$1]}" | jq -c '.missing[]?'
}

# upload REFERENCE FILE: sends the bytes of a tensor that the server does not have. If an upload was interrupted, in
# this run or in an earlier run, it continues with the first missing byte.
upload() {
    local missing
    while missing=$(find_missing "$1") && [ -n "$missing" ]; do
        send "$1" "$2" "$(jq -r '.receivedBytes // 0' <<< "$missing")" > /dev/null || pause_if_unavailable || return 1
    done
    failures=0
}

# send REFERENCE FILE OFFSET: uploads a tensor, or the rest of a tensor. The chunks are small, so that even the small
# data in this example needs several chunks. For real data, use 1 MiB.
send() {
    {
        jq -nc --argjson tensor "$1" --argjson offset "$3" '{header: {$tensor, $offset}}'
        tail -c "+$(($3 + 1))" "$2" | split -b 16384 --filter 'printf "{\"chunk\": \"%s\"}\n" "$(base64 -w 0)"'
    } | call_once gradwire.v1.TensorService/UploadTensor -d @-
}

# watch JOB AFTER: prints a job's events after a sequence number, one on each line, until the job ends. If the
# connection breaks, this function reconnects and continues after the last event.
watch() {
    local after=$2 seen
    seen=$(mktemp "$scratch/events.XXXX")
    until call_once gradwire.v1.TrainingService/WatchJob -d "{\"name\": \"$1\", \"after_sequence\": $after}" |
        jq -c --unbuffered '.events[]' | tee "$seen"; do
        if [ -s "$seen" ]; then failures=0; fi
        pause_if_unavailable || return 1
        after=$(jq -s --argjson after "$after" 'last.sequence // $after | tonumber' "$seen")
    done
}

# download MODEL FILE [EPOCH]: downloads the rest of a model file, appends it to FILE, and checks the digest of the whole
# file. If the connection breaks, this function reconnects and continues at the next byte. With EPOCH, the file has the
# weights after this epoch, which must be a kept epoch of the model's job.
download() {
    local complete=
    until [ "$complete" ]; do
        if call_once gradwire.v1.ModelService/DownloadModel \
            -d "{\"name\": \"$1\", \"epoch\": ${3:-0}, \"offset\": $(stat -c %s "$2")}" > "$scratch/parts"; then
            complete=yes
            failures=0
        else
            pause_if_unavailable || return 1
        fi
        jq -r '.chunk // empty' "$scratch/parts" | while read -r chunk; do base64 -d <<< "$chunk"; done >> "$2"
    done
    [ "$(digest "$2")" = "$(jq -r '.header.sha256 // empty' "$scratch/parts")" ]
}
