package netctx

import (
	"os/exec"
	"strings"
	"testing"
)

func TestFirewallsNameTheirPorts(t *testing.T) {
	for _, row := range []struct {
		name   string
		policy string
		rules  []string
		closed string
	}{
		{"nothing is accepted", "drop", nil, "53/udp 80/tcp 443/tcp 8000-8010/tcp"},
		{"the policy accepts", "accept", nil, ""},
		{"the last rule rejects, as firewalld's", "accept", []string{"tcp dport 80 accept", "reject"}, "53/udp 443/tcp 8000-8010/tcp"},
		{"one port", "drop", []string{"tcp dport 80 accept"}, "53/udp 443/tcp 8000-8010/tcp"},
		{"sets, ranges and the other protocol", "drop", []string{"tcp dport { 80, 443 } accept", "tcp dport 8000-8100 accept", "tcp dport 53 accept"}, "53/udp"},
		{"both protocols", "drop", []string{"meta l4proto { tcp, udp } th dport 53 accept"}, "80/tcp 443/tcp 8000-8010/tcp"},
		{"a rule that drops", "drop", []string{"tcp dport 80 drop"}, "53/udp 80/tcp 443/tcp 8000-8010/tcp"},
		{"the guest's address", "drop", []string{"ip daddr 10.77.0.10 accept"}, ""},
		{"another's address", "drop", []string{"ip daddr 10.77.0.11 accept"}, "53/udp 80/tcp 443/tcp 8000-8010/tcp"},
		{"a port that is not to be one", "drop", []string{"tcp dport != 80 accept", "tcp sport 443 accept"}, "53/udp 80/tcp 443/tcp 8000-8010/tcp"},
	} {
		t.Run(row.name, func(t *testing.T) {
			last := ""
			if n := len(row.rules); n > 0 && row.rules[n-1] == "reject" {
				last = row.rules[n-1]
			}
			text := "table inet f {\n chain other {\n" + strings.Join(row.rules, "\n") + "\n }\n chain input {\n type filter hook input priority 0; policy " + row.policy + ";\n iif lo accept\n ct state established accept\n jump other\n " + last + "\n }\n}\n"
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Cleanup(func() {
				if out, err := exec.Command("nft", "delete", "table", "inet", "f").CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
			found, err := Firewalls(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var closed []string
			for _, f := range found {
				for _, r := range f.ClosedPorts(www("80/tcp", "443/tcp", "8000-8010/tcp", "53/udp")) {
					closed = append(closed, r.String())
				}
				if p := f.Problem(www("80/tcp")); p != "" && !strings.Contains(p, "chain inet f input drops what comes in, and no rule there names 80/tcp: accept it, as with `nft insert rule inet f input tcp dport 80 accept` (ufw: `ufw allow 80/tcp`; firewalld: `firewall-cmd --permanent --add-port=80/tcp`, then `--reload`)") {
					t.Error(p)
				}
			}
			want := strings.Fields(row.closed)
			if len(closed) != len(want) {
				t.Fatalf("closed are %v, want %v", closed, want)
			}
			for _, w := range want {
				if !strings.Contains(" "+strings.Join(closed, " ")+" ", " "+w+" ") {
					t.Errorf("closed are %v, want %v", closed, want)
				}
			}
		})
	}
}

func TestFirewallsOfAnotherFamily(t *testing.T) {
	ports := []string{"80/tcp"}
	v4, v6, both := spec(666, ports, wwwAddr), spec(666, ports, wwwAddr6), www(ports...)
	for _, row := range []struct {
		family string
		guest  Spec
		closed bool
	}{
		{"ip", v4, true}, {"ip", v6, false}, {"ip", both, true},
		{"ip6", v4, false}, {"ip6", v6, true}, {"ip6", both, true},
		{"inet", v4, true}, {"inet", v6, true},
	} {
		if closed := (Firewall{family: row.family}).ClosedPorts(row.guest); (closed != nil) != row.closed {
			t.Errorf("table of %s: a guest with %v has %v closed", row.family, row.guest.Addresses, closed)
		}
	}
}
