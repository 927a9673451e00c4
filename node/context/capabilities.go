package context

import (
	"fmt"
	"strings"
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

// ParseCaps reads the lines of a bcapabilities file: names with or without
// CAP_, in either case, several in a line by commas. Names narrow the set to
// those named; names with ! or ~ before them are taken from it; without any
// name the set is AllCaps.
func ParseCaps(lines []string) (CapSet, error) {
	var named, taken CapSet
	for _, line := range lines {
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
			name := strings.TrimLeft(word, "!~")
			bit, err := capBit(name)
			if err != nil {
				return 0, err
			}
			if name != word {
				taken |= bit
			} else {
				named |= bit
			}
		}
	}
	if named == 0 {
		named = AllCaps
	}
	return named &^ taken, nil
}

func capBit(name string) (CapSet, error) {
	low := strings.TrimPrefix(strings.ToLower(name), "cap_")
	for i, known := range strings.Fields(capNames) {
		if known == low {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("unknown capability %q (see capabilities(7))", name)
}
