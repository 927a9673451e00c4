package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// monitorTimeout is for commands that write or read the machine's memory.
const monitorTimeout = 10 * time.Minute

// monitor is qemu's, by its protocol QMP.
type monitor struct {
	conn net.Conn
	in   *json.Decoder
}

// dialMonitor connects to a qemu that has just been started.
func dialMonitor(path string, ended <-chan struct{}) (*monitor, error) {
	deadline := time.After(time.Minute)
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			m := &monitor{conn, json.NewDecoder(conn)}
			if _, err = m.execute("qmp_capabilities", nil); err != nil {
				conn.Close()
				return nil, err
			}
			return m, nil
		}
		select {
		case <-ended:
			return nil, errors.New("it ended")
		case <-deadline:
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Run runs a command of the monitor that people use.
func (m *monitor) Run(line string) error {
	said, err := m.Ask(line)
	if err == nil && said != "" {
		err = errors.New(said)
	}
	if err != nil {
		return fmt.Errorf("qemu's monitor: %s: %w", line, err)
	}
	return nil
}

// Ask runs a command of the monitor that people use, and returns what it prints.
func (m *monitor) Ask(line string) (string, error) {
	answer, err := m.execute("human-monitor-command", map[string]any{"command-line": line})
	if err != nil {
		return "", err
	}
	var said string
	err = json.Unmarshal(answer, &said)
	return strings.TrimSpace(strings.ReplaceAll(said, "\r", "")), err
}

func (m *monitor) execute(command string, arguments map[string]any) (json.RawMessage, error) {
	if err := m.conn.SetDeadline(time.Now().Add(monitorTimeout)); err != nil {
		return nil, err
	}
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return nil, err
	}
	for {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := m.in.Decode(&answer); err != nil {
			return nil, err
		}
		if answer.Error != nil {
			return nil, errors.New(answer.Error.Desc)
		}
		if answer.Return != nil { // the rest is a greeting, and events
			return answer.Return, nil
		}
	}
}
