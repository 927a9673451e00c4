#!/bin/sh
# Fails, with a diff, unless the committed objects are what bpf/ compiles to.
# Needs what generate.go names: clang-14, llvm-14, libbpf-dev.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# The commands of go generate, writing elsewhere.
sed -n "s|^//go:generate \(.*/bpf2go\)|\1 -output-dir $tmp|p" generate.go >"$tmp/commands"
GOPACKAGE=netctx sh -e "$tmp/commands"

bad=0
for made in "$tmp"/*_bpfel.*; do
	name=$(basename "$made")
	cmp -s "$made" "$name" && continue
	bad=1
	echo "$name is not what bpf/ makes (run: go generate ./node/netctx)" >&2
	case $name in
	*.go) diff -u "$name" "$made" >&2 || true ;;
	*.o)
		llvm-objdump-14 -d --no-show-raw-insn "$name" >"$tmp/committed" 2>/dev/null || true
		llvm-objdump-14 -d --no-show-raw-insn "$made" >"$tmp/new"
		diff -u "$tmp/committed" "$tmp/new" | head -50 >&2 || true
		;;
	esac
done
for name in *_bpfel.*; do
	[ -e "$tmp/$name" ] || { bad=1; echo "$name is made by no command in generate.go" >&2; }
done
exit $bad
