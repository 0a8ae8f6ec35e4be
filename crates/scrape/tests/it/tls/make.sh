#!/bin/sh
# Makes the certificates beside it anew, valid for a hundred years: two authorities, a server at 127.0.0.1 and one
# of another name, a client of each authority.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
for ca in ca stranger; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj "/CN=$ca" \
        -keyout "$work/$ca.key" -out "$ca.pem"
done
leaf() { # NAME AUTHORITY EXTENSIONS
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" \
        -keyout "$1.key" -out "$work/$1.csr"
    printf 'basicConstraints=CA:FALSE\n%s\n' "$3" >"$work/$1.ext"
    openssl x509 -req -in "$work/$1.csr" -CA "$2.pem" -CAkey "$work/$2.key" -CAcreateserial -days 36500 \
        -extfile "$work/$1.ext" -out "$1.pem"
}
leaf server ca "subjectAltName=IP:127.0.0.1"
leaf elsewhere ca "subjectAltName=DNS:elsewhere.example"
leaf client ca "extendedKeyUsage=clientAuth"
leaf intruder stranger "extendedKeyUsage=clientAuth"
rm -r "$work" ./*.srl
