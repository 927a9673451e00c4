package port

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       Range
		err        string // a part of it; "" for none
	}{
		{"a port and its protocol", "80/tcp", Range{TCP, 80, 80}, ""},
		{"without a protocol tcp is meant", "80", Range{TCP, 80, 80}, ""},
		{"the protocol may be in capitals", "53/UDP", Range{UDP, 53, 53}, ""},
		{"a range", "8000-8010/udp", Range{UDP, 8000, 8010}, ""},
		{"a range of one", "80-80/tcp", Range{TCP, 80, 80}, ""},
		{"all ports", "1-65535", Range{TCP, 1, 65535}, ""},
		{"nothing", "", Range{}, `"" is not a port number`},
		{"port 0 cannot be owned", "0/tcp", Range{}, "not a port number from 1 to 65535"},
		{"one more than there are", "65536/tcp", Range{}, "not a port number"},
		{"a sign", "+80/tcp", Range{}, "not a port number"},
		{"hexadecimal", "0x50/tcp", Range{}, "not a port number"},
		{"a leading zero", "080/tcp", Range{}, "not a port number"},
		{"a space", " 80/tcp", Range{}, "not a port number"},
		{"a name of a service", "http", Range{}, "not a port number"},
		{"an unknown protocol", "80/sctp", Range{}, `protocol is "sctp", want tcp or udp`},
		{"a slash and no protocol", "80/", Range{}, `protocol is ""`},
		{"two protocols", "80/tcp/udp", Range{}, `protocol is "tcp/udp"`},
		{"a range backwards", "90-80/tcp", Range{}, "ends before it begins"},
		{"a range without an end", "80-/tcp", Range{}, "not a port number"},
		{"a range without a beginning", "-80/tcp", Range{}, "not a port number"},
		{"a range of three", "1-2-3/tcp", Range{}, "not a port number"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := Parse(row.text)
			checkError(t, err, row.err)
			if got != row.want {
				t.Errorf("Parse(%q) = %v, want %v", row.text, got, row.want)
			}
		})
	}
}

func TestParseForward(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, row := range []struct {
		name, text string
		want       Forward
		err        string
	}{
		{"on every address", "2222:22/tcp", Forward{Host: 2222, Guest: 22, Proto: TCP}, ""},
		{"without a protocol tcp is meant", "2222:22", Forward{Host: 2222, Guest: 22, Proto: TCP}, ""},
		{"on an IPv4 address", "192.0.2.1:2222:22/tcp", Forward{v4, 2222, 22, TCP}, ""},
		{"on an IPv6 address in brackets", "[2001:db8::1]:5353:53/udp", Forward{v6, 5353, 53, UDP}, ""},
		{"nothing", "", Forward{}, "want HOSTPORT:GUESTPORT/PROTO"},
		{"one port", "22/tcp", Forward{}, "want HOSTPORT:GUESTPORT/PROTO"},
		{"an unknown protocol", "2222:22/icmp", Forward{}, `protocol is "icmp"`},
		{"no port of the guest", "2222:/tcp", Forward{}, "guest's port"},
		{"no port of the host", ":22/tcp", Forward{}, "host's port"},
		{"port 0 of the host", "0:22/tcp", Forward{}, "host's port"},
		{"a range of ports", "2222-2223:22-23/tcp", Forward{}, "guest's port"},
		{"a name for the address", "localhost:2222:22/tcp", Forward{}, `"localhost" is not an address`},
		{"an empty address", ":2222:22/tcp", Forward{}, `"" is not an address`},
		{"an IPv6 address without brackets", "2001:db8::1:2222:22/tcp", Forward{}, "brackets belong around an IPv6 address"},
		{"an IPv4 address in brackets", "[192.0.2.1]:2222:22/tcp", Forward{}, "brackets belong around an IPv6 address"},
		{"a bracket that does not close", "[2001:db8::1:2222:22/tcp", Forward{}, "is not an address"},
		{"a bracket that does not open", "2001:db8::1]:2222:22/tcp", Forward{}, "is not an address"},
		{"every IPv4 address by zeros", "0.0.0.0:2222:22/tcp", Forward{}, "leave it out"},
		{"every IPv6 address by zeros", "[::]:2222:22/tcp", Forward{}, "leave it out"},
		{"IPv4 in IPv6 form", "[::ffff:192.0.2.1]:2222:22/tcp", Forward{}, "as 192.0.2.1"},
		{"an address with a zone", "[fe80::1%eth0]:2222:22/tcp", Forward{}, "as fe80::1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := ParseForward(row.text)
			checkError(t, err, row.err)
			if got != row.want {
				t.Errorf("ParseForward(%q) = %v, want %v", row.text, got, row.want)
			}
		})
	}
}

func checkError(t *testing.T, err error, part string) {
	t.Helper()
	switch {
	case err == nil && part != "":
		t.Errorf("no error, want one with %q", part)
	case err != nil && (part == "" || !strings.Contains(err.Error(), part)):
		t.Errorf("error %q, want one with %q", err, part)
	}
}

func TestOverlaps(t *testing.T) {
	for _, row := range []struct {
		name, a, b string
		want       bool
	}{
		{"the same port", "80/tcp", "80/tcp", true},
		{"the same port of another protocol", "53/tcp", "53/udp", false},
		{"neighbours", "1-80", "81-90", false},
		{"one port in common", "1-80", "80-90", true},
		{"one within the other", "1-65535", "80", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, b := parsed(t, row.a), parsed(t, row.b)
			if a.Overlaps(b) != row.want || b.Overlaps(a) != row.want {
				t.Errorf("%s overlaps %s: %t and %t, want %t", a, b, a.Overlaps(b), b.Overlaps(a), row.want)
			}
		})
	}
}

func parsed(t *testing.T, s string) Range {
	t.Helper()
	r, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestForwardTakesThePortOfTheHost(t *testing.T) {
	f, err := ParseForward("192.0.2.1:2222:22/tcp")
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Range(); got != parsed(t, "2222/tcp") {
		t.Errorf("%s takes %s", f, got)
	}
}

func TestJSONHasTheWrittenForm(t *testing.T) {
	type both struct {
		Ports    []Range
		Forwards []Forward
	}
	const text = `{"Ports":["80/tcp","8000-8010/udp"],"Forwards":["2222:22/tcp","[2001:db8::1]:53:53/udp"]}`
	var v both
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(v)
	if err != nil || string(got) != text {
		t.Errorf("got %s, %v, want %s", got, err, text)
	}
	for _, bad := range []string{`{"Ports":["80/x"]}`, `{"Forwards":["22"]}`, `{"Ports":[80]}`} {
		if err := json.Unmarshal([]byte(bad), &v); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"80", "80/tcp", "8000-8010/udp", "0", "65536", "80/TCP", "1-2-3", "/", "-", "٣/tcp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			if r != (Range{}) {
				t.Errorf("Parse(%q) gives %v beside an error", s, r)
			}
			return
		}
		if r.First == 0 || r.Last < r.First || r.Proto != TCP && r.Proto != UDP {
			t.Errorf("Parse(%q) = %+v", s, r)
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("Parse(%q) writes itself as %q, which reads %v, %v", s, r, again, err)
		}
	})
}

func FuzzParseForward(f *testing.F) {
	for _, s := range []string{"2222:22/tcp", "192.0.2.1:2222:22/tcp", "[2001:db8::1]:1:2/udp", "[::ffff:1.2.3.4]:1:2", "[fe80::1%a]:1:2", ":::/", "1:2:3:4", "[]:1:2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fw, err := ParseForward(s)
		if err != nil {
			if fw != (Forward{}) {
				t.Errorf("ParseForward(%q) gives %v beside an error", s, fw)
			}
			return
		}
		if fw.Host == 0 || fw.Guest == 0 || fw.Proto != TCP && fw.Proto != UDP {
			t.Errorf("ParseForward(%q) = %+v", s, fw)
		}
		if again, err := ParseForward(fw.String()); err != nil || again != fw {
			t.Errorf("ParseForward(%q) writes itself as %q, which reads %v, %v", s, fw, again, err)
		}
	})
}
