package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/health"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// healthSpec is the health block of a guest as written in its file.
type healthSpec struct {
	pos                  Position // zero: the guest has none
	checks               []*checkSpec
	healthyFor, deadline text
}

// checkSpec is one check as written.
type checkSpec struct {
	pos                     Position
	exec                    []text
	tcp, http, status, unit text
	ready                   given[bool]
}

const (
	maxChecks   = 16
	maxDeadline = time.Hour
)

// health reads a list of checks, or a mapping with one.
func (d *decoder) health(spec *healthSpec) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		v = yamlpos.Target(v)
		spec.pos = d.At(v)
		if v.Kind == yaml.SequenceNode {
			d.checks(spec)(name, v)
		} else {
			d.Fields(name, v, "a list of checks, as [{tcp: 80}], or {checks: […], healthy_for: 10s}", []key{
				{Name: "checks", Read: d.checks(spec)},
				{Name: "healthy_for", Read: d.Text(&spec.healthyFor, wantTime)},
				{Name: "deadline", Read: d.Text(&spec.deadline, wantTime)},
			})
		}
		if len(spec.checks) == 0 {
			d.Add(spec.pos, "", "health: the list is empty, want checks such as [{tcp: 80}, {exec: [/usr/bin/true]}]")
		}
	}
}

func (d *decoder) checks(spec *healthSpec) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		const want = "a list of checks, as [{tcp: 80}, {exec: [/usr/bin/true]}]"
		if v = yamlpos.Target(v); v.Kind != yaml.SequenceNode {
			d.Wrong(name, v, want)
			return
		}
		if len(v.Content) > maxChecks {
			d.Add(d.At(v), "", "%s: %d checks, at most %d are possible", name, len(v.Content), maxChecks)
			return
		}
		for _, item := range v.Content {
			c := &checkSpec{pos: d.At(item)}
			given := d.Fields("a check", item, "a mapping, as {tcp: 80}", []key{
				{Name: "exec", Read: d.Texts(&c.exec, "a list of words, as [/usr/bin/curl, -f, http://localhost/]")},
				{Name: "tcp", Read: d.Text(&c.tcp, wantTCP)},
				{Name: "http", Read: d.Text(&c.http, wantHTTP)},
				{Name: "status", Read: d.Text(&c.status, "a number from 100 to 599")},
				{Name: "unit", Read: d.Text(&c.unit, "a unit of systemd, as nginx.service")},
				{Name: "ready", Read: d.Flag(&c.ready)},
			})
			_, status := given["status"]
			kinds := len(given)
			if _, http := given["http"]; status {
				kinds--
				if !http {
					d.Add(given["status"], "", "status: only a check of http has one")
				}
			}
			switch {
			case given == nil: // reported before
			case kinds != 1:
				d.Add(c.pos, "", "a check is one of exec, tcp, http, unit and ready; this one is %d of them", kinds)
			case c.exec != nil && (len(c.exec) == 0 || c.exec[0].Value == ""):
				d.Add(c.pos, "", "exec: the command is empty")
			case c.ready.OK() && !c.ready.Value:
				d.Add(c.ready.Pos, "leave the check out", "ready: want true, have false")
			}
			spec.checks = append(spec.checks, c)
		}
	}
}

const (
	wantTime = "a time, as 30s or 5m"
	wantTCP  = "a port, or an address and a port, as 80 or 203.0.113.11:80"
	wantHTTP = "an address of plain HTTP, as http://127.0.0.1/healthz"
)

// resolveHealth returns the health checks of the guest, or nil if it has none.
func (r *resolver) resolveHealth(spec *healthSpec) *health.Health {
	if spec.pos.Line == 0 {
		return nil
	}
	h := &health.Health{Deadline: health.DefaultDeadline}
	for _, c := range spec.checks {
		h.Checks = append(h.Checks, r.check(c))
	}
	r.value(spec.healthyFor, "healthy_for", func(s string) (err error) {
		h.HealthyFor, err = parseTime(s)
		return err
	})
	r.value(spec.deadline, "deadline", func(s string) (err error) {
		h.Deadline, err = parseTime(s)
		if err == nil && (h.Deadline == 0 || h.Deadline > maxDeadline) {
			err = fmt.Errorf("want a time from 1s to %s, have %q", maxDeadline, s)
		}
		return err
	})
	if !r.failed && h.HealthyFor >= h.Deadline {
		r.failed = true
		r.FailedIn(cmp.Or(spec.deadline, spec.healthyFor), &Error{
			Msg:  fmt.Sprintf("health: healthy_for %s leaves no time before the deadline %s", h.HealthyFor, h.Deadline),
			Hint: "make the deadline longer: it includes the time in which the guest starts",
		})
	}
	return h
}

func (r *resolver) check(spec *checkSpec) (c health.Check) {
	for _, word := range spec.exec {
		r.value(word, "exec", func(s string) error {
			c.Exec = append(c.Exec, s)
			if strings.ContainsRune(s, 0) {
				return fmt.Errorf("%q holds a zero byte, which no argument can", s)
			}
			return nil
		})
	}
	r.value(spec.tcp, "tcp", func(s string) (err error) {
		c.TCP, err = parseTCP(s)
		return err
	})
	r.value(spec.http, "http", func(s string) (err error) {
		c.HTTP, err = parseHTTP(s)
		return err
	})
	r.value(spec.status, "status", func(s string) error {
		n, err := setting.WholeNumber(s, 100, 599)
		if c.HTTP != nil {
			c.HTTP.Status = int(n)
		}
		return err
	})
	r.value(spec.unit, "unit", func(s string) error {
		c.Unit = s
		if !isUnit(s) {
			return fmt.Errorf("want a unit of systemd, as nginx.service, have %q", s)
		}
		return nil
	})
	c.Ready = spec.ready.Value
	return c
}

// parseTime reads "30s", "5m" or a number of seconds.
func parseTime(s string) (time.Duration, error) {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	t, err := time.ParseDuration(s)
	if err != nil || t < 0 {
		return 0, fmt.Errorf("want %s, have %q", wantTime, s)
	}
	return t, nil
}

// parseTCP reads a port of the guest's localhost, or an address with a port.
func parseTCP(s string) (netip.AddrPort, error) {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil && n > 0 {
		return netip.AddrPortFrom(localhost, uint16(n)), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 || a.Addr().Zone() != "" {
		return a, fmt.Errorf("want %s, have %q", wantTCP, s)
	}
	return a, nil
}

var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// parseHTTP reads the URL of a check. Names are not resolved, because the guest may
// resolve them differently from the host.
func parseHTTP(s string) (*health.HTTP, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.User != nil || u.Fragment != "" || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return nil, fmt.Errorf("want %s, have %q", wantHTTP, s)
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() == "localhost" {
		addr, err = localhost, nil
	}
	if err != nil || addr.Zone() != "" {
		return nil, &Error{Msg: fmt.Sprintf("http: want an IP address or localhost in the URL, have %q", u.Hostname()), Hint: "a name would have to be looked up in the guest: {exec: [curl, …]} does that"}
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "80"), 10, 16)
	if err != nil || port == 0 {
		return nil, errors.New("want a port from 1 to 65535 in the URL")
	}
	return &health.HTTP{Addr: netip.AddrPortFrom(addr, uint16(port)), Host: u.Host, Path: u.RequestURI()}, nil
}

// isUnit reports whether s is a valid name of a unit (systemd.unit(5)).
func isUnit(s string) bool {
	name, kind, ok := strings.Cut(s, ".")
	return ok && name != "" && kind != "" && s[0] != '-' && len(s) <= 255 &&
		!strings.ContainsFunc(s, func(c rune) bool {
			return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune(`:-_.\@`, c))
		})
}
