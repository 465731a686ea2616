#!/bin/sh
# Lists the pods of its own namespace with nothing but curl; each step is explained in docs/manual-access.md.
#
#   kemudi run --allow 'get,list pods' -- sh examples/app.sh
set -eu
home=/var/run/secrets/kubernetes.io/serviceaccount
exec curl --silent --show-error --fail-with-body --cacert "$home/ca.crt" -H "Authorization: Bearer $(cat "$home/token")" \
  "https://kubernetes.default.svc/api/v1/namespaces/$(cat "$home/namespace")/pods"
