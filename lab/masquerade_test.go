package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// TestHostsAreMasqueraded has a host reach a server beyond the machine, which sees the
// machine's address.
func TestHostsAreMasqueraded(t *testing.T) {
	l := mustUp(t, Options{Dir: labDir(t), Name: "masq", Hosts: 1})
	thread := make(chan int)
	served := make(chan net.Listener, 1)
	fail := make(chan error, 1)
	linked := make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the namespace goes with the thread
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			fail <- err
			return
		}
		thread <- unix.Gettid()
		<-linked
		link, err := netlink.LinkByName("mirror0")
		if err == nil {
			err = errors.Join(netlink.AddrAdd(link, address("198.51.100.2/24")), netlink.LinkSetUp(link))
		}
		if err != nil {
			fail <- err
			return
		}
		listener, err := net.Listen("tcp", "198.51.100.2:80")
		if err != nil {
			fail <- err
			return
		}
		served <- listener
	}()
	var tid int
	select {
	case tid = <-thread:
	case err := <-fail:
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink0"
	uplink := &netlink.Veth{LinkAttrs: attrs, PeerName: "mirror0", PeerNamespace: netlink.NsPid(tid)}
	if err := netlink.LinkAdd(uplink); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeLink("uplink0"); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(netlink.AddrAdd(uplink, address("198.51.100.1/24")), netlink.LinkSetUp(uplink)); err != nil {
		t.Fatal(err)
	}
	close(linked)
	var listener net.Listener
	select {
	case listener = <-served:
	case err := <-fail:
		t.Fatal(err)
	}
	defer listener.Close()
	peer := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			peer <- err.Error()
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "mirror")
		peer <- conn.RemoteAddr().(*net.TCPAddr).IP.String()
	}()
	if got := login(t, l, l.Hosts[0], "exec 3<>/dev/tcp/198.51.100.2/80; cat <&3"); got != "mirror" {
		t.Errorf("the host read %q", got)
	}
	if got := <-peer; got != "198.51.100.1" {
		t.Errorf("the mirror saw %s", got)
	}

	// What stays in the lab (the logins of this test) is not tracked, what leaves
	// it is, until the lab ends.
	tracked := func() (inside, outside int) {
		flows, err := linux.Dump(func() ([]*netlink.ConntrackFlow, error) {
			return netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range flows {
			from, _ := netip.AddrFromSlice(f.Forward.SrcIP.To4())
			to, _ := netip.AddrFromSlice(f.Forward.DstIP.To4())
			switch {
			case !l.Subnet.Contains(from) && !l.Subnet.Contains(to):
			case l.Subnet.Contains(from) && l.Subnet.Contains(to):
				inside++
			default:
				outside++
			}
		}
		return inside, outside
	}
	if inside, outside := tracked(); inside != 0 || outside == 0 {
		t.Errorf("%d connections inside the lab are tracked, %d of its hosts with others", inside, outside)
	}
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if inside, outside := tracked(); inside+outside != 0 {
		t.Errorf("%d connections are left in the machine's table", inside+outside)
	}
}

func address(s string) *netlink.Addr {
	a, err := netlink.ParseAddr(s)
	if err != nil {
		panic(err)
	}
	return a
}
