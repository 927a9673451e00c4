package check

import (
	"context"
	"strings"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/netctx"
	"github.com/vsfleet/vsfleet/node/probe"
)

// findListeners returns the services that listen on all addresses.
type findListeners func(context.Context) ([]netctx.Listener, error)

// wildcardListeners finds the oldest pitfall of all: the host's sshd listens on every
// address, so that a login to a guest lands on the host.
func wildcardListeners(ctx context.Context, find findListeners) probe.Answer {
	found, err := find(ctx)
	if err != nil {
		return probe.Tried(err)
	}
	if found == nil {
		return probe.Yes("")
	}
	var order []string // programs by first port; without PIDs, so that the text is the same on many hosts
	ports := map[string][]string{}
	for _, l := range found {
		program := l.Process
		if l.PID == 0 {
			program = outOfSight
		}
		if ports[program] == nil {
			order = append(order, program)
		}
		at := l.Addr.String()
		if l.Proto == port.UDP {
			at += "/udp"
		}
		ports[program] = append(ports[program], at)
	}
	var parts, cures []string
	for _, program := range order {
		parts = append(parts, program+" listens on "+strings.Join(ports[program], " "))
		cure := "give " + program + " an address of the host to listen on"
		switch program {
		case "sshd":
			cure = "write ListenAddress with the host's own address into /etc/ssh/sshd_config"
		case "systemd":
			cure = "write ListenStream= with the host's own address into the socket units (systemctl list-sockets)"
		case "docker-proxy":
			cure = "publish ports of containers at the host's own address (docker run -p ADDRESS:PORT:PORT, or ip in /etc/docker/daemon.json)"
		}
		cures = append(cures, cure)
	}
	return probe.No("%s", strings.Join(parts, "; ")).WithCure("%s", strings.Join(cures, "; "))
}

// outOfSight is the owner of a socket whose process is in another PID namespace.
const outOfSight = "a process out of sight"
