package systemd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// bus is a connection to systemd's private socket: D-Bus as its specification has it,
// of which only calls with texts as arguments are needed.
type bus struct {
	conn   *os.File
	in     *bufio.Reader
	serial uint32
}

// message is what systemd sends.
type message struct {
	kind    byte
	reply   uint32 // serial of the call that it answers
	name    string // of an error
	member  string // of a signal
	sig     string
	body    []byte
	byteOrd binary.ByteOrder
}

// Kinds of messages.
const (
	methodCall   = 1
	methodReturn = 2
	methodError  = 3
	signalSent   = 4
)

// Fields of a message's header.
const (
	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// maxMessage bounds what is read: messages of systemd have some kilobytes.
const maxMessage = 4 << 20

// connect opens the socket at path and introduces this process as its user, whom the
// kernel vouches for (SASL EXTERNAL).
func connect(ctx context.Context, path string) (*bus, error) {
	conn, err := dial(path, unix.SOCK_STREAM)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	b := &bus{conn: conn, in: bufio.NewReader(conn)}
	stop := b.until(ctx)
	defer stop()
	// All at once, as systemd's own tools do: what it reads together with BEGIN lies there
	// until more comes.
	if _, err = fmt.Fprintf(conn, "\x00AUTH EXTERNAL %x\r\nBEGIN\r\n", strconv.Itoa(os.Geteuid())); err == nil {
		var line string
		if line, err = b.in.ReadString('\n'); err == nil && !strings.HasPrefix(line, "OK ") {
			err = fmt.Errorf("it refuses root: %q", strings.TrimSpace(line))
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return b, nil
}

// dial connects to a socket of the host's. (Package net would add 350 KB to vsnode: it
// resolves names.)
func dial(path string, kind int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// until breaks reads and writes off when ctx ends.
func (b *bus) until(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { b.conn.Close() })
}

// send sends a call and returns its serial.
func (b *bus) send(path, iface, member string, args ...string) (uint32, error) {
	b.serial++
	var body encoder
	for _, arg := range args {
		body.text(arg)
	}
	var m encoder
	m.b = append(m.b, 'l', methodCall, 0, 1)
	m.uint32(uint32(len(body.b)))
	m.uint32(b.serial)
	var fields encoder
	fields.field(fieldPath, "o", path)
	fields.field(fieldInterface, "s", iface)
	fields.field(fieldMember, "s", member)
	fields.field(fieldDestination, "s", "org.freedesktop.systemd1")
	if len(args) > 0 {
		fields.field(fieldSignature, "g", strings.Repeat("s", len(args)))
	}
	m.uint32(uint32(len(fields.b)))
	m.b = append(m.b, fields.b...) // begins at 16, a multiple of 8
	m.align(8)
	_, err := b.conn.Write(append(m.b, body.b...))
	return b.serial, err
}

// read returns the next message.
func (b *bus) read() (message, error) {
	var fixed [16]byte
	if _, err := io.ReadFull(b.in, fixed[:]); err != nil {
		return message{}, err
	}
	m := message{kind: fixed[1], byteOrd: binary.LittleEndian}
	if fixed[0] == 'B' {
		m.byteOrd = binary.BigEndian
	} else if fixed[0] != 'l' {
		return m, fmt.Errorf("no message of D-Bus: it begins with %q", fixed[0])
	}
	bodySize, fieldSize := m.byteOrd.Uint32(fixed[4:]), m.byteOrd.Uint32(fixed[12:])
	if bodySize > maxMessage || fieldSize > maxMessage {
		return m, errors.New("a message is too large")
	}
	rest := make([]byte, (fieldSize+7)&^7+bodySize)
	if _, err := io.ReadFull(b.in, rest); err != nil {
		return m, err
	}
	m.body = rest[len(rest)-int(bodySize):]
	return m, m.readFields(rest[:fieldSize])
}

// readFields reads the header's fields: structs of a byte and a variant.
func (m *message) readFields(b []byte) error {
	d := decoder{b: b, order: m.byteOrd}
	for d.align(8); d.at < len(d.b) && d.err == nil; d.align(8) {
		field, value := d.byte(), d.variant()
		switch field {
		case fieldReplySerial:
			n, _ := strconv.ParseUint(value, 10, 32)
			m.reply = uint32(n)
		case fieldErrorName:
			m.name = value
		case fieldMember:
			m.member = value
		case fieldSignature:
			m.sig = value
		}
	}
	return d.err
}

// values returns what the body has, as texts; of types that are not read it has none.
func (m *message) values() ([]string, error) {
	d := decoder{b: m.body, order: m.byteOrd}
	var out []string
	for _, kind := range []byte(m.sig) {
		out = append(out, d.value(kind))
	}
	return out, d.err
}

type encoder struct{ b []byte }

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) uint32(n uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, n)
}

func (e *encoder) text(s string) {
	e.uint32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) signature(s string) { e.b = append(append(append(e.b, byte(len(s))), s...), 0) }

func (e *encoder) field(code byte, kind, value string) {
	e.align(8)
	e.b = append(e.b, code)
	e.signature(kind)
	if kind == "g" {
		e.signature(value)
	} else {
		e.text(value)
	}
}

// decoder reads values; after the first error all are empty.
type decoder struct {
	b     []byte
	at    int
	order binary.ByteOrder
	err   error
}

func (d *decoder) align(n int) { d.at = (d.at + n - 1) / n * n }

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || d.at > len(d.b) || n > len(d.b)-d.at {
		if d.err == nil {
			d.err = errors.New("a message ends too early")
		}
		return make([]byte, min(max(n, 0), 8))
	}
	d.at += n
	return d.b[d.at-n : d.at]
}

func (d *decoder) byte() byte { return d.take(1)[0] }

func (d *decoder) uint32() uint32 {
	d.align(4)
	return d.order.Uint32(d.take(4))
}

func (d *decoder) text(n int) string {
	s := string(d.take(n))
	d.take(1) // NUL
	if d.err != nil {
		return ""
	}
	return s
}

func (d *decoder) variant() string {
	kind := d.text(int(d.byte()))
	if len(kind) != 1 {
		d.fail(kind)
		return ""
	}
	return d.value(kind[0])
}

// value reads a value of one of the types that systemd's answers are read for.
func (d *decoder) value(kind byte) string {
	switch kind {
	case 's', 'o':
		return d.text(int(d.uint32()))
	case 'g':
		return d.text(int(d.byte()))
	case 'u', 'b':
		return strconv.FormatUint(uint64(d.uint32()), 10)
	case 'i':
		return strconv.Itoa(int(int32(d.uint32())))
	case 'v':
		return d.variant()
	}
	d.fail(string(kind))
	return ""
}

func (d *decoder) fail(kind string) {
	if d.err == nil {
		d.err = fmt.Errorf("a value of type %q is not read", kind)
	}
}
