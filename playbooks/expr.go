package playbooks

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// Expr is a compiled expression.
type Expr struct {
	Source  string
	Pos     Position
	program *vm.Program
	uses    map[string]bool // names at the top: "host", "vars", registered ones
	vars    []string        // variables that it needs
}

// longestExpr bounds an expression, and with it the time to compile it.
const longestExpr = 4 << 10

// compile compiles an expression that gives a truth value, or a list of texts.
func compile(source string, env types.Map, list bool) (*Expr, *Error) {
	e := &Expr{Source: strings.TrimSpace(source), uses: map[string]bool{}}
	if len(source) > longestExpr {
		return nil, &Error{Msg: fmt.Sprintf("the expression is longer than %d KiB", longestExpr>>10)}
	}
	if strings.Contains(source, "{{") {
		return nil, &Error{Msg: "an expression is written without {{ }}", Hint: "write its names as they are: vars.x == \"a\""}
	}
	if before, after, found := strings.Cut(source, "${"); found {
		what := "a condition"
		if list {
			what = "an expression"
		}
		name, _, _ := strings.Cut(after, "}")
		name, _, _ = strings.Cut(name, ":-")
		line := 1 + strings.Count(before, "\n")
		return nil, &Error{Pos: Position{Line: line, Column: len(before)}, Msg: what + " takes no ${…}", Hint: "write " + yamlpos.Short(name)}
	}
	tree, err := parser.Parse(source)
	if err == nil {
		visitor := &names{e: e, inner: map[string]bool{}}
		ast.Walk(&tree.Node, visitor)
		if visitor.dynamic {
			return nil, &Error{Msg: "a variable is named by an expression", Hint: `write vars.NAME or vars["NAME"]`}
		}
		// No clock: the same playbook on the same hosts does the same.
		options := []expr.Option{expr.Env(env), expr.DisableBuiltin("now"), expr.MaxNodes(1000)}
		if list {
			options = append(options, expr.AsKind(kindOfList))
		} else {
			options = append(options, expr.AsBool())
		}
		e.program, err = expr.Compile(source, options...)
	}
	if err != nil {
		return nil, explain(err, env, list)
	}
	return e, nil
}

// names collects the names that an expression uses.
type names struct {
	e       *Expr
	inner   map[string]bool
	dynamic bool
}

func (n *names) Visit(node *ast.Node) {
	switch v := (*node).(type) {
	case *ast.IdentifierNode:
		n.e.uses[v.Value] = true
	case *ast.MemberNode:
		id, ok := v.Node.(*ast.IdentifierNode)
		if !ok || id.Value != "vars" {
			return
		}
		name, constant := v.Property.(*ast.StringNode)
		if !constant {
			n.dynamic = true
			return
		}
		n.e.vars = append(n.e.vars, name.Value)
	}
}

var (
	unknownName = regexp.MustCompile(`^unknown (?:name|field) (\S+)`)
	expected    = regexp.MustCompile(`^expected (\S+), but got (.+)$`)
)

// explain puts an error of the compiler into words. Its Pos.Column is an offset in
// the source.
func explain(err error, env types.Map, list bool) *Error {
	want := "a condition, which is true or false"
	if list {
		want = "a list of texts"
	}
	var at *file.Error
	if !errors.As(err, &at) {
		msg, _, _ := strings.Cut(err.Error(), "\n")
		if m := expected.FindStringSubmatch(msg); m != nil {
			have := m[2]
			hint := ""
			switch have {
			case "int", "float64":
				hint = "compare it: … != 0"
			case "string":
				hint = `compare it: … != ""`
			case "unknown":
				have = "nothing"
			}
			return &Error{Msg: fmt.Sprintf("want %s, have %s", want, have), Hint: hint}
		}
		return &Error{Msg: msg}
	}
	out := &Error{Msg: at.Message, Pos: Position{Line: at.Line, Column: at.Column}}
	if m := unknownName.FindStringSubmatch(at.Message); m != nil {
		out.Msg = fmt.Sprintf("unknown name %q", m[1])
		out.Hint = yamlpos.DidYouMean(m[1], known(env))
		if out.Hint == "" {
			out.Hint = "known are " + strings.Join(slices.Sorted(maps.Keys(env)), ", ") + `; put a text in quotes: "` + m[1] + `"`
		}
	}
	return out
}

// known returns all words of an environment.
func known(env types.Map) []string {
	list := slices.Clone(builtin.Names)
	for name, t := range env {
		list = append(list, name)
		if m, ok := t.(types.Map); ok {
			list = append(list, known(m)...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// True reports whether the expression is true in a scope.
func (e *Expr) True(sc *Scope) (bool, error) {
	v, err := e.run(sc)
	if err != nil {
		return false, err
	}
	is, ok := v.(bool)
	if !ok {
		return false, e.fail("it gave %T, want true or false", v)
	}
	return is, nil
}

// List returns the texts that the expression gives.
func (e *Expr) List(sc *Scope) ([]string, error) {
	v, err := e.run(sc)
	if err != nil {
		return nil, err
	}
	switch list := v.(type) {
	case []string:
		return list, nil
	case []any:
		texts := make([]string, len(list))
		for i, item := range list {
			text, ok := printed(item)
			if !ok {
				return nil, e.fail("item %d of the list is no text", i+1)
			}
			texts[i] = text
		}
		return texts, nil
	}
	return nil, e.fail("it gave %T, want a list of texts", v)
}

func (e *Expr) run(sc *Scope) (any, error) {
	for _, name := range e.vars {
		if _, ok := sc.Vars[name]; !ok {
			return nil, e.fail("host %s has no variable vars.%s", sc.Host.Name, name)
		}
	}
	v, err := expr.Run(e.program, sc.env())
	if err != nil {
		msg, _, _ := strings.Cut(err.Error(), "\n")
		if strings.HasPrefix(msg, "invalid operation: bool(") {
			msg = "it gave no truth value, want true or false"
		}
		return nil, e.fail("%s", msg)
	}
	return v, nil
}

func (e *Expr) fail(format string, args ...any) error {
	return &Error{Pos: e.Pos, Msg: yamlpos.Short(e.Source) + ": " + fmt.Sprintf(format, args...)}
}

// All reports whether all expressions are true, and which one is not.
func All(list []*Expr, sc *Scope) (ok bool, not *Expr, err error) {
	for _, e := range list {
		ok, err := e.True(sc)
		if err != nil || !ok {
			return false, e, err
		}
	}
	return true, nil, nil
}
