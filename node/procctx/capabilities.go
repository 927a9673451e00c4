package procctx

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CapSet is a set of capabilities, a bit a capability. A guest's capabilities
// count against its own user namespace only.
type CapSet uint64

// AllCaps is every capability up to CAP_CHECKPOINT_RESTORE (kernel 5.9).
const AllCaps CapSet = 1<<41 - 1

// capNames in the order of their numbers (capabilities(7)).
const capNames = "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap " +
	"linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module " +
	"sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time " +
	"sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog " +
	"wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"

// DefaultCaps is what a guest has whose configuration does not say otherwise:
// all but those that the kernel asks of the host's root alone and whose absence
// programs and units look for first. With a name that means nothing chrony
// fails; without it its unit is skipped (ConditionCapability= in systemd.unit(5)). A
// name in bcapabilities gives one back, for a program that only wants to hold it.
//
// The rest that means nothing inside stays, since no unit is skipped by it and
// programs that set a fixed list of capabilities fail if one is missing:
// AUDIT_WRITE, AUDIT_CONTROL, SYSLOG, WAKE_ALARM, BLOCK_SUSPEND, SYS_PACCT, PERFMON, BPF.
const DefaultCaps = AllCaps &^ (1<<unix.CAP_SYS_MODULE | 1<<unix.CAP_SYS_RAWIO | 1<<unix.CAP_SYS_TIME |
	1<<unix.CAP_AUDIT_READ | 1<<unix.CAP_MAC_ADMIN | 1<<unix.CAP_MAC_OVERRIDE)

// InitCaps is what a distribution's init does not boot without: systemd drops
// privileges of services and mounts, every login sets ids.
const InitCaps CapSet = 1<<0 | 1<<1 | 1<<3 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<21 // chown to setpcap, sys_admin

// ParseCaps reads a bcapabilities file as util-vserver does: names add to the
// default set, names with ! or ~ before them are taken from the set. A name may
// have CAP_ before it, in either case; ^N is the capability of that number. A
// line may hold several names, separated by commas or blanks. Later words
// override earlier ones.
func ParseCaps(lines []string) (CapSet, error) {
	set := DefaultCaps
	for _, line := range lines {
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
			name := strings.TrimLeft(word, "!~")
			bit, err := capBit(name)
			if err != nil {
				return 0, err
			}
			if name != word {
				set &^= bit
			} else {
				set |= bit
			}
		}
	}
	return set, nil
}

func capBit(name string) (CapSet, error) {
	names := strings.Fields(capNames)
	if number, ok := strings.CutPrefix(name, "^"); ok {
		if n, err := strconv.Atoi(number); err == nil && n >= 0 && n < len(names) {
			return 1 << n, nil
		}
	}
	if i := slices.Index(names, strings.TrimPrefix(strings.ToLower(name), "cap_")); i >= 0 {
		return 1 << i, nil
	}
	return 0, fmt.Errorf("unknown capability %q (see capabilities(7))", name)
}

// String names the capabilities of a set.
func (c CapSet) String() string {
	var in []string
	for i, name := range strings.Fields(capNames) {
		if c&(1<<i) != 0 {
			in = append(in, strings.ToUpper(name))
		}
	}
	return strings.Join(in, ", ")
}
