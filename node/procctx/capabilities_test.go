package procctx

import (
	"strings"
	"testing"
)

func TestCapabilitiesAreReadAsUtilVserverDoes(t *testing.T) {
	const sysAdmin, netRaw, sysTime, mknod CapSet = 1 << 21, 1 << 13, 1 << 25, 1 << 27
	for _, row := range []struct {
		name  string
		lines []string
		want  CapSet
		fails string
	}{
		{"nothing", nil, DefaultCaps, ""},
		{"a name adds and does not narrow", []string{"CAP_SYS_ADMIN"}, DefaultCaps | sysAdmin, ""},
		{"several, in each way of writing", []string{"sys_admin,NET_RAW", "cap_sys_time MKNOD"}, DefaultCaps | sysAdmin | netRaw | sysTime | mknod, ""},
		{"names with ! and ~ take away", []string{"!CAP_NET_RAW", "~mknod"}, DefaultCaps &^ netRaw &^ mknod, ""},
		{"numbers", []string{"^25,~^27"}, (DefaultCaps | sysTime) &^ mknod, ""},
		{"the last word holds", []string{"~MKNOD", "MKNOD"}, DefaultCaps | mknod, ""},
		{"all but one", []string{"all,~sys_module"}, AllCaps &^ (1 << 16), ""},
		{"none but some", []string{"~all", "KILL"}, 1 << 5, ""},
		{"a mistyped name", []string{"# mine", "KILL, NET_ADMN"}, 0, `2:7: unknown capability "NET_ADMN"; did you mean net_admin?`},
		{"an unknown name", []string{"SYS_MAGIC"}, 0, `1:1: unknown capability "SYS_MAGIC"`},
		{"a number beyond", []string{"^64"}, 0, `"^64": no capability has this number`},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := ParseCaps(strings.Join(row.lines, "\n"))
			if row.fails != "" {
				if err == nil || !strings.Contains(err.Error(), row.fails) {
					t.Errorf("error %v, want %q", err, row.fails)
				}
				return
			}
			if err != nil || got != row.want {
				t.Errorf("set is %s (%v), want %s", got, err, row.want)
			}
		})
	}
	if got := InitCaps.String(); got != "CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SETPCAP, SYS_ADMIN" {
		t.Errorf("an init needs %s", got)
	}
}
