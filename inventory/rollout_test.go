package inventory

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/internal/batch"
	"github.com/vsfleet/vsfleet/internal/health"
)

func TestHealth(t *testing.T) {
	inv := mustLoad(t, base+`  www:
    on: h1
    image: deb
    health:
      checks:
        - {exec: [/usr/bin/test, -f, "/run/${guest.name}"]}
        - {tcp: 80}
        - {tcp: "[2001:db8::1]:25"}
        - {http: "http://${host.address}:8080/a?b=c", status: 204}
        - {http: "http://localhost"}
        - {unit: nginx.service}
        - {ready: true}
      healthy_for: 10
      deadline: 90s
  short: {on: h2, image: deb, health: [{tcp: "25"}]}
  none: {on: h2, image: deb}
`)
	local := func(port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	}
	diff(t, inv.mustHost(t, "h1").mustGuest(t, "www").Health, &health.Health{
		Checks: []health.Check{
			{Exec: []string{"/usr/bin/test", "-f", "/run/www"}},
			{TCP: local(80)},
			{TCP: netip.MustParseAddrPort("[2001:db8::1]:25")},
			{HTTP: &health.HTTP{Addr: netip.MustParseAddrPort("192.0.2.1:8080"), Host: "192.0.2.1:8080", Path: "/a?b=c", Status: 204}},
			{HTTP: &health.HTTP{Addr: local(80), Host: "localhost", Path: "/"}},
			{Unit: "nginx.service"},
			{Ready: true},
		},
		HealthyFor: 10 * time.Second, Deadline: 90 * time.Second,
	})
	diff(t, inv.mustHost(t, "h2").mustGuest(t, "short").Health, &health.Health{
		Checks: []health.Check{{TCP: local(25)}}, Deadline: health.DefaultDeadline,
	})
	if h := inv.mustHost(t, "h2").mustGuest(t, "none").Health; h != nil {
		t.Errorf("none has %+v", h)
	}
}

func TestRollout(t *testing.T) {
	inv := mustLoad(t, base[:strings.Index(base, "guests")]+`rollout:
  serial: [1, 10%, "100%"]
  canary: h1
  pause: 30s
  max_fail: 2
  on_failure: keep
  retries: 3
  host_timeout: 10m
  budget: {site: 50%}
`)
	want := Rollout{
		Serial: []batch.Size{batch.Count(1), batch.Percent(10), batch.Percent(100)}, Canary: "h1", Pause: 30 * time.Second,
		MaxFail: batch.Count(2), OnFailure: "keep", Retries: 3, HostTimeout: 10 * time.Minute,
		Budget: map[string]batch.Size{"site": batch.Percent(50)},
	}
	if got := fmt.Sprintf("%+v", inv.Rollout); got != fmt.Sprintf("%+v", want) {
		t.Errorf("got %s, want %+v", got, want)
	}
	for _, text := range []string{"serial: 3", `serial: "1,10%"`} {
		mustLoad(t, "hosts: {h1: {}}\nrollout: {"+text+"}\n")
	}
}

func TestHealthAndRolloutErrors(t *testing.T) {
	guest := func(health string) string { return base + "  a: {on: h1, image: deb, health: " + health + "}\n" }
	for _, row := range []struct{ name, text, want string }{
		{"no checks", guest("[]"), "fleet.yml:4:35: health: the list is empty, want checks such as [{tcp: 80}, {exec: [/usr/bin/true]}]"},
		{"a check of two kinds", guest("[{tcp: 80, unit: a.service}]"), "fleet.yml:4:36: a check is one of exec, tcp, http, unit and ready; this one is 2 of them"},
		{"a check of no kind", guest("[{}]"), "this one is 0 of them"},
		{"a status of nothing", guest("[{tcp: 80, status: 200}]"), "status: only a check of http has one"},
		{"an unknown kind", guest("[{tpc: 80}]"), `unknown key "tpc" (did you mean "tcp"?)`},
		{"a port too large", guest("[{tcp: 70000}]"), "fleet.yml:4:42: tcp: want a port, or an address and a port"},
		{"a name for an address", guest("[{http: 'http://example.net/'}]"), `http: want an IP address or localhost in the URL, have "example.net"`},
		{"a URL of TLS", guest("[{http: 'https://127.0.0.1/'}]"), "http: want an address of plain HTTP"},
		{"a URL with a line break", guest(`[{http: "http://127.0.0.1/a\r\nX: y"}]`), "http: want an address of plain HTTP"},
		{"a password in a URL", guest("[{http: 'http://a:b@127.0.0.1/'}]"), "http: want an address of plain HTTP"},
		{"an unlikely status", guest("[{http: 'http://127.0.0.1/', status: 42}]"), "status: want a number from 100 to 599"},
		{"an option for a unit", guest("[{unit: '--version.service'}]"), "unit: want a unit of systemd"},
		{"a unit without a kind", guest("[{unit: nginx}]"), "unit: want a unit of systemd"},
		{"ready that is false", guest("[{ready: false}]"), "ready: want true, have false (leave the check out)"},
		{"an empty command", guest("[{exec: []}]"), "exec: the command is empty"},
		{"a time that is none", guest("{checks: [{tcp: 80}], healthy_for: soon}"), `healthy_for: want a time, as 30s or 5m, have "soon"`},
		{"no time before the deadline", guest("{checks: [{tcp: 80}], healthy_for: 3m}"), "health: healthy_for 3m0s leaves no time before the deadline 2m0s"},
		{"a deadline beyond patience", guest("{checks: [{tcp: 80}], deadline: 2h}"), "deadline: want a time from 1s to 1h0m0s"},
		{"too many checks", guest("[" + strings.Repeat("{tcp: 80},", 17) + "]"), "health: 17 checks, at most 16 are possible"},
		{"a value that is bad on one host", guest(`[{tcp: "${vars.domain}"}]`), `have "example.net" on host h1`},

		{"a batch of none", "rollout: {serial: [1, 0]}", "fleet.yml:1:23: serial: a batch has at least one host"},
		{"no batches", "rollout: {serial: []}", "serial: want sizes of batches, as 10% or [1, 10%, 100%], have an empty list"},
		{"a canary that matches nothing", "hosts: {a: {}}\nrollout: {canary: b}", `canary: no host or group matches "b"`},
		{"a label that no host has", "hosts: {a: {}}\nrollout: {budget: {site: 1}}", `budget: no host has a label "site"`},
		{"what is not known for failures", "rollout: {on_failure: stop}", "on_failure: want revert or keep"},
		{"too many to be a percentage", "rollout: {max_fail: 101%}", "max_fail: want a percentage from 0% to 100%"},
		{"a rollout twice", "rollout: {serial: 1}\nx-a: 1\nrollout: {serial: 1}", `duplicate key "rollout"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := load(t, row.text)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v\nwant %s", err, row.want)
			}
		})
	}
}
