package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Kind of a frame of a [Stream].
type Kind byte

// Kinds of frames.
const (
	KindMessage Kind = 'm' // a Message: the request, what is notified meanwhile, the response
	KindData    Kind = 'd' // bytes
	KindErrors  Kind = 'e' // bytes of a program's standard error
	KindEnd     Kind = 'z' // of this side's data; nothing else is in it
)

// A frame is its kind, the length of what follows in three bytes, the most
// significant first, and that.
const frameHeader = 4

// Bounds of frames. A sender fills no more than one packet of SSH; a receiver
// takes a bit more.
const (
	maxSent          = 32<<10 - frameHeader
	MaxData          = 64 << 10
	MaxStreamMessage = 4 << 20
)

// Frame is one frame of a stream.
type Frame struct {
	Kind    Kind
	Bytes   []byte  // of KindData and KindErrors; the next Receive overwrites it
	Message Message // of KindMessage
}

// Stream carries one request and the bytes that belong to it: a tree, a log, what
// a terminal shows. Its messages have the form of those of a [Conn]. Any number
// of goroutines may send; one may receive.
type Stream struct {
	r   *bufio.Reader
	buf []byte

	send sync.Mutex
	w    io.Writer
	out  []byte // a frame that is being sent
}

// NewStream carries frames over a pair of streams.
func NewStream(r io.Reader, w io.Writer) *Stream {
	return &Stream{r: bufio.NewReaderSize(r, MaxData), w: w}
}

// Send writes a message.
func (s *Stream) Send(m Message) error {
	m.Version = "2.0"
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	if len(b) > MaxStreamMessage {
		return fmt.Errorf("write %s: %w", m.Method, ErrMessageTooLong)
	}
	return s.write(KindMessage, b)
}

// Writer returns a writer of data, or of errors.
func (s *Stream) Writer(kind Kind) io.Writer { return frameWriter{s, kind} }

// End says that no more data comes from this side.
func (s *Stream) End() error { return s.write(KindEnd, nil) }

type frameWriter struct {
	*Stream
	kind Kind
}

func (w frameWriter) Write(b []byte) (n int, err error) {
	for n < len(b) {
		part := b[n:min(n+maxSent, len(b))]
		if err := w.write(w.kind, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// write sends a frame by one write of its own.
func (s *Stream) write(kind Kind, b []byte) error {
	s.send.Lock()
	defer s.send.Unlock()
	s.out = append(s.out[:0], byte(kind), byte(len(b)>>16), byte(len(b)>>8), byte(len(b)))
	s.out = append(s.out, b...)
	_, err := s.w.Write(s.out)
	return err
}

// Receive reads the next frame. It returns io.EOF at the end of the stream, and
// io.ErrUnexpectedEOF where that is within a frame.
func (s *Stream) Receive() (Frame, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return Frame{}, err
	}
	f := Frame{Kind: Kind(head[0])}
	head[0] = 0
	size := int(binary.BigEndian.Uint32(head[:]))
	switch f.Kind {
	case KindMessage:
		m, err := s.message(size)
		f.Message = m
		return f, err
	case KindData, KindErrors:
		if size > MaxData {
			return Frame{}, fmt.Errorf("a frame of %d bytes, and %d are possible", size, MaxData)
		}
		if s.buf == nil {
			s.buf = make([]byte, MaxData)
		}
		f.Bytes = s.buf[:size]
		_, err := io.ReadFull(s.r, f.Bytes)
		return f, within(err)
	case KindEnd:
		if size == 0 {
			return f, nil
		}
	}
	return Frame{}, fmt.Errorf("a frame of kind %q with %d bytes", f.Kind, size)
}

// message reads one; it costs memory as it arrives.
func (s *Stream) message(size int) (Message, error) {
	if size > MaxStreamMessage {
		return Message{}, ErrMessageTooLong
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, s.r, int64(size)); err != nil {
		return Message{}, within(err)
	}
	return parse(b.Bytes())
}

// within is the error of a stream that ends in the middle of a frame.
func within(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
