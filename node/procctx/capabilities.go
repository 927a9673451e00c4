package procctx

import (
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/vsyntax"
)

// CapSet is a set of capabilities, one bit each. A guest's capabilities apply to
// its own user namespace only.
type CapSet uint64

// AllCaps is every capability up to CAP_CHECKPOINT_RESTORE (kernel 5.9).
const AllCaps CapSet = 1<<41 - 1

// capNames are the names in the order of their numbers (capabilities(7)).
const capNames = "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap " +
	"linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module " +
	"sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time " +
	"sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog " +
	"wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"

// DefaultCaps are the capabilities of a guest unless its configuration changes them:
// all but those that have an effect on the host only and that programs and units
// check for. Holding CAP_SYS_TIME without its effect, chrony would fail; without it,
// its unit is skipped (ConditionCapability= in systemd.unit(5)). A name in
// bcapabilities gives a capability back, for a program that insists on holding it.
//
// Others that have no effect inside stay, since no unit checks for them and programs
// that set a fixed list of capabilities fail if one is missing: AUDIT_WRITE,
// AUDIT_CONTROL, SYSLOG, WAKE_ALARM, BLOCK_SUSPEND, SYS_PACCT, PERFMON, BPF.
const DefaultCaps = AllCaps &^ (1<<unix.CAP_SYS_MODULE | 1<<unix.CAP_SYS_RAWIO | 1<<unix.CAP_SYS_TIME |
	1<<unix.CAP_AUDIT_READ | 1<<unix.CAP_MAC_ADMIN | 1<<unix.CAP_MAC_OVERRIDE)

// InitCaps are the capabilities without which a distribution's init does not boot:
// systemd mounts and drops privileges of services, every login sets ids.
const InitCaps CapSet = 1<<0 | 1<<1 | 1<<3 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<21 // chown to setpcap, sys_admin

// capTable has the names of capabilities for lists.
var capTable = sync.OnceValue(func() vsyntax.Table {
	t := vsyntax.Table{What: "capability", Prefixes: []string{"cap_"}}
	for i, name := range strings.Fields(capNames) {
		t.Flags = append(t.Flags, vsyntax.Flag{Names: []string{name}, Mask: 1 << i})
	}
	return t
})

// ParseCaps parses a bcapabilities file as util-vserver does (package vsyntax): names
// are added to the default set, names with a leading ! or ~ are removed from it.
// Errors begin with LINE:COLUMN.
func ParseCaps(text string) (CapSet, error) {
	items, err := capTable().Parse(text)
	return CapSet(vsyntax.Apply(uint64(DefaultCaps), items)), err
}

// String returns the names of the capabilities in the set.
func (c CapSet) String() string {
	return strings.ToUpper(strings.Join(capTable().Names(uint64(c)), ", "))
}
