package fleet

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/inventory"
)

func TestWays(t *testing.T) {
	for _, row := range []struct {
		name  string
		flag  string // -J
		jumps map[string]string
		want  map[string]string // by host; "error: …"
	}{
		{name: "a bastion that no inventory knows takes the host's settings",
			jumps: map[string]string{"web": "bastion"},
			want:  map[string]string{"web": "u-web@bastion:22 id-web"}},
		{name: "with what the jump says of it",
			jumps: map[string]string{"web": "ssh://ops@bastion:2200"},
			want:  map[string]string{"web": "ops@bastion:2200 id-web"}},
		{name: "one of the inventory has its own",
			jumps: map[string]string{"web": "gate"},
			want:  map[string]string{"web": "u-gate@10.0.0.9:22 id-gate alias-gate"}},
		{name: "but for what the jump says",
			jumps: map[string]string{"web": "ops@gate:2200"},
			want:  map[string]string{"web": "ops@10.0.0.9:2200 id-gate alias-gate"}},
		{name: "it is found by its address, too",
			jumps: map[string]string{"web": "10.0.0.9"},
			want:  map[string]string{"web": "u-gate@10.0.0.9:22 id-gate alias-gate"}},
		{name: "a jump for all is none for the bastion itself",
			jumps: map[string]string{"web": "gate", "db": "gate", "gate": "gate"},
			want:  map[string]string{"web": "u-gate@10.0.0.9:22 id-gate alias-gate", "gate": ""}},
		{name: "nor for the first of two, and the second goes by the first",
			jumps: map[string]string{"web": "gate,db", "db": "gate,db", "gate": "gate,db"},
			want: map[string]string{
				"web": "u-gate@10.0.0.9:22 id-gate alias-gate > u-db@10.0.0.8:22 id-db alias-db",
				"db":  "u-gate@10.0.0.9:22 id-gate alias-gate", "gate": "",
			}},
		{name: "a bastion may have a way of its own",
			jumps: map[string]string{"web": "db", "db": "gate"},
			want:  map[string]string{"web": "u-gate@10.0.0.9:22 id-gate alias-gate > u-db@10.0.0.8:22 id-db alias-db"}},
		{name: "a circle is named",
			jumps: map[string]string{"web": "db", "db": "gate", "gate": "db"},
			want:  map[string]string{"web": "error: db is reached through gate itself"}},
		{name: "a flag wins over the inventory", flag: "gate",
			jumps: map[string]string{"web": "bastion", "gate": "bastion"},
			want:  map[string]string{"web": "u-gate@10.0.0.9:22 id-gate alias-gate", "gate": ""}},
		{name: "and may say none", flag: "none",
			jumps: map[string]string{"web": "bastion"}, want: map[string]string{"web": ""}},
		{name: "what is no way is an error",
			jumps: map[string]string{"web": "gate:ssh"}, want: map[string]string{"web": `error: host web: jump host "gate:ssh"`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := &Access{Jump: row.flag, Config: "none"}
			for name, address := range map[string]string{"web": "10.0.0.1", "db": "10.0.0.8", "gate": "10.0.0.9"} {
				h := &inventory.Host{Name: name, Address: address, Port: 22, Become: true}
				h.SSH = inventory.SSH{User: "u-" + name, Identity: "id-" + name, Jump: row.jumps[name], HostKeyAlias: "alias-" + name}
				a.Hosts = append(a.Hosts, h)
			}
			for _, h := range a.Hosts {
				want, ok := row.want[h.Name]
				if !ok {
					continue
				}
				s, err := a.settings(t.Context(), h)
				if text, wrong := strings.CutPrefix(want, "error: "); wrong {
					if err == nil || !strings.Contains(err.Error(), text) {
						t.Errorf("%s: error %v, want %q", h.Name, err, text)
					}
					continue
				}
				if got := shown(s.Via); err != nil || got != want {
					t.Errorf("%s goes by %q, error %v; want %q", h.Name, got, err, want)
				}
			}
		})
	}
}

// shown is the way to a host, from the controller's side on.
func shown(s *transport.Settings) string {
	if s == nil {
		return ""
	}
	text := strings.TrimSpace(fmt.Sprintf("%s@%s:%d %s %s", s.User, s.Address, cmp.Or(s.Port, 22), s.Identity, s.HostKeyAlias))
	if s.Become {
		text += " become"
	}
	if s.Via != nil {
		text = shown(s.Via) + " > " + text
	}
	return text
}
