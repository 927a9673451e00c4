package nat

import (
	"testing"

	"github.com/vsfleet/vsfleet/internal/port"
)

func forwards(t testing.TB, all ...string) []port.Forward {
	t.Helper()
	var fs []port.Forward
	for _, s := range all {
		f, err := port.ParseForward(s)
		must(t, err)
		fs = append(fs, f)
	}
	return fs
}

func both(t testing.TB, hostPort, guestPort string) []port.Forward {
	t.Helper()
	return forwards(t, hostPort+":"+guestPort+"/tcp", hostPort+":"+guestPort+"/udp")
}

func TestTraffic(t *testing.T) {
	onHost(t, func(t *testing.T) {
		out := outside(t)
		a := guest(t, "a", 666)
		b := guest(t, "b", 49151)
		syncGuests(t,
			Guest{XID: 666, Name: "a", Forwards: both(t, "2222", "22")},
			Guest{XID: 49151, Name: "b", Forwards: append(both(t, "2223", "22"), both(t, "203.0.113.12:80", "22")...)})
		t.Log(ruleset(t))

		a.wants(t, "a guest goes out as the host", outside4+":7", "outside for "+host4)
		a.wants(t, "a guest goes out as the host by IPv6", "["+outside6+"]:7", "outside for "+host6)
		out.wants(t, "a forward from outside", host4+":2222", "a for "+outside4)
		out.wants(t, "a forward from outside by IPv6", "["+host6+"]:2222", "a for "+outside6)
		out.wants(t, "a forward on the host's second address", second4+":2223", "b for "+outside4)
		out.wants(t, "a forward of one address", second4+":80", "b for "+outside4)
		out.wantsNothing(t, "a forward of one address, on another", host4+":80")
		(*machine)(nil).wants(t, "the host to its own address", host4+":2222", "a for "+host4)
		(*machine)(nil).wants(t, "the host to its own address by IPv6", "["+host6+"]:2222", "a for "+host6)
		(*machine)(nil).wants(t, "the host to 127.0.0.1", "127.0.0.1:2222", "a for 100.64.0.1")
		(*machine)(nil).wants(t, "the host to ::1", "[::1]:2222", "a for fd76:7365:7276:1cad::1")
		(*machine)(nil).wants(t, "the host to the guest itself", "100.64.2.154:22", "a for 100.64.0.1")
		a.wants(t, "from guest to guest by the host's address", host4+":2223", "b for 100.64.2.154")
		a.wants(t, "from guest to guest by IPv6", "["+host6+"]:2223", "b for fd76:7365:7276:1cad::29a")
		b.wants(t, "and the other way", host4+":2222", "a for 100.64.191.255")
		a.wants(t, "a guest to itself by the host's address", host4+":2222", "a for 100.64.0.1")
		a.wants(t, "a guest to itself by IPv6", "["+host6+"]:2222", "a for fd76:7365:7276:1cad::1")
		a.wants(t, "a guest to itself on its own localhost", "127.0.0.1:22", "a for 127.0.0.1")
		a.wantsNothing(t, "a guest to another's private address", "100.64.191.255:22")
		a.wantsNothing(t, "a guest to another's private IPv6 address", "[fd76:7365:7276:1cad::bfff]:22")
	})
}
