package netctx

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlyTLSIsPutOntoTCP(t *testing.T) {
	g, _ := newGuest(t, www("80/tcp"))
	for _, row := range []struct {
		name    string
		value   []byte
		allowed bool // by us; the kernel may have no such protocol
	}{
		{"tls", []byte("tls"), true},
		{"tls and its end", []byte("tls\x00"), true},
		{"another", []byte("smc"), false},
		{"one that begins with tls", []byte("tlsfoo"), false},
		{"more than the kernel shows, to be changed meanwhile", append([]byte("tls"), make([]byte, 8192)...), false},
	} {
		fd := g.tcp4()
		err := g.setsockopt(fd, unix.IPPROTO_TCP, unix.TCP_ULP, row.value)
		if refused := errors.Is(err, unix.EPERM); refused == row.allowed {
			t.Errorf("%s: %v", row.name, err)
		}
		g.close(fd)
	}
}

// Two UDP sockets with SO_REUSEADDR share a port, and the later one receives.
func TestNobodyIsGivenThePortOfARunningService(t *testing.T) {
	setting(t, "ip_local_port_range", "51820 51821")
	h := host(t)
	thief, _ := newGuest(t, spec(121, []string{"80/tcp"}, hostAddr))
	owner, _ := newGuest(t, spec(122, []string{"51820/udp", "51822/udp"}, hostAddr))
	reuse := func(m *machine, fd int) {
		m.must("set REUSEADDR", m.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
	}
	service := owner.udp4()
	reuse(owner, service)
	owner.must("bind", owner.bind(service, "0.0.0.0:51820"))
	wildcard := h.udp4()
	defer h.close(wildcard)
	reuse(h, wildcard)
	h.must("bind", h.bind(wildcard, "0.0.0.0:51821"))

	for _, how := range []struct {
		name string
		take func(fd int) error
	}{
		{"bind", func(fd int) error { return thief.bind(fd, "0.0.0.0:0") }},
		{"bind to the address", func(fd int) error { return thief.bind(fd, netip.AddrPortFrom(hostAddr.Addr(), 0).String()) }},
		{"connect", func(fd int) error { return thief.connect(fd, "10.77.0.1:9") }},
		{"send", func(fd int) error { return thief.sendto(fd, "x", "10.77.0.1:9") }},
	} {
		fd := thief.udp4()
		reuse(thief, fd)
		if err := how.take(fd); err == nil {
			t.Errorf("%s: it was given %s", how.name, thief.sockname(fd))
		}
		thief.close(fd)
	}
	fd := thief.udp4()
	if err := thief.setsockopt(fd, unix.IPPROTO_IP, 51, word(51820|51820<<16)); !errors.Is(err, unix.EPERM) {
		t.Errorf("IP_LOCAL_PORT_RANGE: %v", err)
	}

	// A guest that owns a port may share it with itself.
	for range 2 {
		fd := owner.udp4()
		reuse(owner, fd)
		owner.must("bind", owner.bind(fd, "0.0.0.0:51822"))
	}
	c := h.receiver(unix.AF_INET, "10.77.0.1:40000") // no port is left for the kernel to choose
	defer h.close(c)
	h.must("send", h.sendto(c, "hello", netip.AddrPortFrom(hostAddr.Addr(), 51820).String()))
	if got, _, err := owner.recv(service); got != "hello" {
		t.Errorf("the owner received %q, %v", got, err)
	}
}
