// A Control Layer in Go's standard library, as LocalAIStack's: module.start, status, events.
//
//	go run control_layer.go /run/lair/lair.sock
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
)

type reply struct {
	ID     *int            `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
		Data    struct {
			Code string `json:"code"`
		} `json:"data"`
	} `json:"error"`
}

type status struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Health struct {
		State string `json:"state"`
	} `json:"health"`
	Exit *struct {
		Code   *int `json:"code"`
		Signal *int `json:"signal"`
	} `json:"exit"`
}

type lair struct {
	conn   net.Conn
	lines  *bufio.Reader
	next   int
	events int
}

func (l *lair) call(method string, params any, result any) error {
	l.next++
	request := map[string]any{"jsonrpc": "2.0", "id": l.next, "method": method, "params": params}
	if err := json.NewEncoder(l.conn).Encode(request); err != nil {
		return err
	}
	for {
		text, err := l.lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var r reply
		if err := json.Unmarshal(text, &r); err != nil {
			return err
		}
		switch {
		case r.Method != "":
			l.events++ // came between
		case r.Error != nil:
			return fmt.Errorf("%s: %s", r.Error.Data.Code, r.Error.Message)
		default:
			return json.Unmarshal(r.Result, result)
		}
	}
}

func run(path string) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	l := &lair{conn: conn, lines: bufio.NewReader(conn)}
	var ignored json.RawMessage
	if err := l.call("events.subscribe", map[string]any{}, &ignored); err != nil {
		return err
	}
	var list struct {
		Modules []status `json:"modules"`
	}
	if err := l.call("module.list", map[string]any{}, &list); err != nil {
		return err
	}
	for _, m := range list.Modules {
		name := map[string]any{"name": m.Name}
		var s status
		steps := []struct {
			method string
			params map[string]any
		}{
			{"module.start", name},
			{"module.wait", map[string]any{"name": m.Name, "for": "ready", "timeout_ms": 10000}},
			{"module.stop", name},
			{"module.wait", map[string]any{"name": m.Name, "for": "stopped"}},
		}
		for _, step := range steps {
			if err := l.call(step.method, step.params, &ignored); err != nil {
				return err
			}
		}
		if err := l.call("module.status", name, &s); err != nil {
			return err
		}
		fmt.Printf("%s: %s, health %s, %d events so far\n", s.Name, s.State, s.Health.State, l.events)
	}
	return nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "name the socket")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
