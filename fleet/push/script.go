package push

import (
	"fmt"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/transport"
)

// The scripts below run in any shell that POSIX describes, dash and busybox
// among them. The user's login shell takes them in as one quoted word, and may be
// csh or fish: see [transport.Script].

// shell returns the command that runs a script, whatever the login shell is.
func shell(script string) string { return transport.Script(script, "vsnode") }

// hostTools are the programs that a host must have for a push.
var hostTools = []string{"find", "uname", "id", "mkdir", "chmod", "sha256sum", "sync", "mv"}

// startScript runs the first of the binaries that is in dir, or prints what the
// host is. find reports whether nobody but root could have written it: in one
// process, and stat(1) is not everywhere.
func startScript(command Command, dir string, binaries []*binary) string {
	var list []string
	for _, b := range binaries {
		list = append(list, fmt.Sprintf("%s:%d", b.hash, b.size))
	}
	return fmt.Sprintf(`d=%s; for b in %s; do h=${b%%:*}; f=$d/$h/vsnode; [ -e $f ] || continue; `+
		`set -- $(find $d/. $d/$h $f -prune -user 0 -perm 0700 "(" -type d -o -type f -size ${b#*:}c ")"); `+
		`if [ "$*" = "$d/. $d/$h $f" ]; then printf "\000%s %%s\n" $h; exec $f %s; fi; done; `+
		`t=none; for c in gzip zstd; do command -v $c >/dev/null 2>&1 && t=$c; done; `+
		`m=; for c in %s; do command -v $c >/dev/null 2>&1 || m=$m,$c; done; `+
		`printf "\000%s %%s %%s %%s\n" "$(uname -m)" "$(id -u)" $t$m`,
		dir, strings.Join(list, " "), execWord, command, strings.Join(hostTools, " "), needWord)
}

// uploadScript writes a binary from its input into dir; beside is the name of the
// temporary file, which nobody else uses. A stream that ends too early fails to unpack, or has
// another hash.
func uploadScript(dir, beside string, b *binary, form string) string {
	unpack := map[string]string{"zstd": "zstd -dcq", "gzip": "gzip -dc"}[form]
	if unpack == "" {
		unpack = "cat"
	}
	return fmt.Sprintf(`set -eu; umask 077; d=%s; t=$d/%s; h=%s; mkdir -p $d; `+
		`if [ -z "$(find $d/. -prune -user 0)" ]; then echo "$d does not belong to root" >&2; exit 1; fi; chmod 0700 $d; `+
		`trap "rm -f $t" EXIT; trap "exit 1" HUP INT TERM PIPE; `+
		`%s >$t; set -- $(sha256sum $t); `+
		`if [ "$1" = $h ]; then chmod 0700 $t; else echo "what arrived is not what was sent: its sha256 is $1, want $h" >&2; exit 1; fi; `+
		`mkdir -p $d/$h; chmod 0700 $d/$h; sync $t || sync; mv -f $t $d/$h/vsnode; `+
		// From here on vsnode is there; what cannot be tidied up stays.
		`set +e; find $d/. -type f -name ".upload-*" -mmin +60 -exec rm -f "{}" +; `+
		`for o in $(find $d/. -type d -mtime +30); do o=${o##*/}; [ -f $d/$o/vsnode ] || continue; [ $o = $h ] && continue; `+
		`ls -l /proc/[0-9]*/exe 2>/dev/null | grep -q "$d/$o/vsnode" || rm -rf $d/$o; done; exit 0`,
		dir, beside, b.hash, unpack)
}
