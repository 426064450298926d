package token

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string // "system", "user" or "assistant"
	Content string
}

// wrap is what stands before and after a content.
type wrap struct{ before, after string }

// family is a way to write conversations down. Texts may hold {bos} and {eos}, the vocabulary's own.
type family struct {
	name   string
	marks  []string // all of these are in the chat template of a model of the family
	absent []string // and none of these

	system    wrap // a turn of its own, or with merged the text before a user's content
	user      wrap
	assistant wrap
	again     string // before every user's turn but the first
	prompt    string // begins the answer
	says      string // system content if the conversation has none

	merged bool // the system's content goes into the first user's turn
	last   bool // into the last one
	mute   bool // the system has no say
	always bool // the system's turn is there even if it has nothing to say
	trim   bool // contents lose white space at both ends
	strict bool // user and assistant take turns
}

// families in the order in which they are tried: from the most particular mark to the most common.
//
// Sources: the chat templates of Llama-2-7b-chat, Meta-Llama-3-8B-Instruct, Llama-3.1-8B-Instruct, gemma-2-2b-it and gemma-3 (system text as in
// gemma-3), Phi-3-mini-4k-instruct, Phi-4-mini-instruct, zephyr-7b-beta and TinyLlama-1.1B-Chat, Qwen1.5/2/2.5/3, SmolLM and
// SmolLM2; the Mistral versions as in Mistral's cookbook, "Chat templates".
var families = []family{
	chatML("smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
	chatML("qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
	chatML("qwen2", "You are a helpful assistant."),
	chatML("qwen1.5", "You are a helpful assistant"),
	chatML("chatml", ""),
	llama3Family("llama-3.1", "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"),
	llama3Family("llama-3", ""),
	{name: "gemma", marks: []string{"<start_of_turn>", "<end_of_turn>"}, merged: true, strict: true, trim: true,
		system: wrap{"", "\n\n"}, user: wrap{"<start_of_turn>user\n", "<end_of_turn>\n"},
		assistant: wrap{"<start_of_turn>model\n", "<end_of_turn>\n"}, prompt: "<start_of_turn>model\n"},
	{name: "llama-2", marks: []string{"[INST]", "<<SYS>>"}, merged: true, strict: true, trim: true, again: "{bos}",
		system: wrap{"<<SYS>>\n", "\n<</SYS>>\n\n"}, user: wrap{"[INST] ", " [/INST]"}, assistant: wrap{" ", " {eos}"}},
	{name: "mistral-v1", marks: []string{" [INST] "}, absent: []string{"[SYSTEM_PROMPT]"}, merged: true, strict: true,
		system: wrap{"", "\n\n"}, user: wrap{" [INST] ", " [/INST]"}, assistant: wrap{" ", "{eos}"}},
	{name: "mistral-v3-tekken", marks: []string{`"[INST]"`, "[AVAILABLE_TOOLS]"}, absent: []string{"[SYSTEM_PROMPT]"}, merged: true, last: true,
		strict: true, system: wrap{"", "\n\n"}, user: wrap{"[INST]", "[/INST]"}, assistant: wrap{"", "{eos}"}},
	{name: "mistral-v3", marks: []string{"[INST] ", "[AVAILABLE_TOOLS]"}, absent: []string{"[SYSTEM_PROMPT]"}, merged: true, last: true,
		strict: true, system: wrap{"", "\n\n"}, user: wrap{"[INST] ", "[/INST]"}, assistant: wrap{" ", "{eos}"}},
	{name: "mistral-v0", marks: []string{"'[INST] '", "' [/INST]'"}, absent: []string{"[SYSTEM_PROMPT]"}, mute: true, strict: true,
		user: wrap{"[INST] ", " [/INST]"}, assistant: wrap{"", "{eos}"}},
	{name: "phi-4-mini", marks: []string{"'|>' + message['content'] + '<|end|>'"}, system: wrap{"<|system|>", "<|end|>"},
		user: wrap{"<|user|>", "<|end|>"}, assistant: wrap{"<|assistant|>", "<|end|>"}, prompt: "<|assistant|>"},
	{name: "phi-3", marks: []string{"<|user|>", "<|assistant|>", "<|end|>"}, absent: []string{"<|content|>"}, system: wrap{"<|system|>\n", "<|end|>\n"},
		user: wrap{"<|user|>\n", "<|end|>\n"}, assistant: wrap{"<|assistant|>\n", "<|end|>\n"}, prompt: "<|assistant|>\n"},
	{name: "zephyr", marks: []string{"<|user|>", "<|assistant|>", "eos_token"}, absent: []string{"[gMASK]", "<|tool_declare|>"},
		system: wrap{"<|system|>\n", "{eos}\n"}, user: wrap{"<|user|>\n", "{eos}\n"}, assistant: wrap{"<|assistant|>\n", "{eos}\n"},
		prompt: "<|assistant|>\n"},
}

// chatML is the format of OpenAI's ChatML, which differs between models by what the system says unless told otherwise.
func chatML(name, says string) family {
	f := family{name: name, marks: []string{"<|im_start|>", "<|im_end|>"}, absent: []string{"<|im_sep|>", "<end_of_utterance>", "## Metadata"}, says: says,
		system: wrap{"<|im_start|>system\n", "<|im_end|>\n"}, user: wrap{"<|im_start|>user\n", "<|im_end|>\n"},
		assistant: wrap{"<|im_start|>assistant\n", "<|im_end|>\n"}, prompt: "<|im_start|>assistant\n"}
	if says != "" {
		f.marks = append(f.marks, says)
	}
	return f
}

// llama3Family is the format of Llama 3. From 3.1 on the system always speaks, and first tells dates: here always the day
// that the published template names where no clock is at hand, so that a prompt is the same tomorrow.
func llama3Family(name, dates string) family {
	f := family{name: name, marks: []string{"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, absent: []string{">>>"}, trim: true,
		system:    wrap{"<|start_header_id|>system<|end_header_id|>\n\n" + dates, "<|eot_id|>"},
		user:      wrap{"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
		assistant: wrap{"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
		prompt:    "<|start_header_id|>assistant<|end_header_id|>\n\n", always: dates != ""}
	if f.always {
		f.marks = append(f.marks, "Cutting Knowledge Date: December 2023")
	}
	return f
}

// Templates lists the families of chat templates that are known.
func Templates() []string {
	var names []string
	for _, f := range families {
		names = append(names, f.name)
	}
	slices.Sort(names)
	return names
}

// Template writes conversations as a model was trained to read them.
type Template struct {
	family
	bos, eos string
}

// Template recognises the chat template of the vocabulary by its marks. What is not known is refused: a guess would
// change every answer. [Tokenizer.TemplateNamed] chooses one by hand.
//
// Only plain turns are written: no tools, no thinking switches.
func (t *Tokenizer) Template() (*Template, error) {
	source := t.meta.ChatTemplate
	if source == "" {
		return nil, errors.New("the vocabulary has no chat template (tokenizer.chat_template): name one of " + strings.Join(Templates(), ", "))
	}
	for _, f := range families {
		if f.fits(source) {
			return t.template(f), nil
		}
	}
	return nil, fmt.Errorf("chat template %.60q is of no known family: name one of %s if the model reads it", source, strings.Join(Templates(), ", "))
}

// TemplateNamed returns one of [Templates], whatever the vocabulary says.
func (t *Tokenizer) TemplateNamed(name string) (*Template, error) {
	for _, f := range families {
		if f.name == name {
			return t.template(f), nil
		}
	}
	return nil, fmt.Errorf("chat template %.40q is not known, have %s", name, strings.Join(Templates(), ", "))
}

func (t *Tokenizer) template(f family) *Template {
	text := func(id int32) string {
		if id < 0 {
			return ""
		}
		return t.meta.Tokens[id]
	}
	return &Template{f, text(t.meta.BOS), text(t.meta.EOS)}
}

func (f *family) fits(source string) bool {
	for _, m := range f.marks {
		// templates write line breaks and quotes in several ways, but never inside a mark
		if !strings.Contains(source, m) {
			return false
		}
	}
	return !slices.ContainsFunc(f.absent, func(m string) bool { return strings.Contains(source, m) })
}

// Name is the family's.
func (t *Template) Name() string { return t.name }

// Prompt is a conversation written down. It knows which parts are the template's and which are somebody's content.
type Prompt struct {
	text    strings.Builder
	content [][2]int // places in the text that are content, in order
}

// String is the whole text.
func (p *Prompt) String() string { return p.text.String() }

func (p *Prompt) add(w wrap, content string) {
	p.text.WriteString(w.before)
	from := p.text.Len()
	p.text.WriteString(content)
	if content != "" {
		p.content = append(p.content, [2]int{from, p.text.Len()})
	}
	p.text.WriteString(w.after)
}

// Render writes a conversation, and the beginning of an answer if addAssistant is set. The begin of text is not in it:
// [Tokenizer.EncodeChat] adds it if the vocabulary wants one.
func (t *Template) Render(messages []Message, addAssistant bool) (*Prompt, error) {
	system, turns, err := t.split(messages)
	if err != nil {
		return nil, fmt.Errorf("write conversation as %s: %w", t.name, err)
	}
	p := &Prompt{}
	if (system != "" || t.always) && !t.merged {
		p.add(t.fill(t.system), system)
	}
	holder := 0 // the turn that carries a merged system content
	if t.last {
		for i, m := range turns {
			if m.Role == "user" {
				holder = i
			}
		}
	}
	for i, m := range turns {
		content := m.Content
		if t.trim {
			content = strings.TrimSpace(content)
		}
		if m.Role == "assistant" {
			p.add(t.fill(t.assistant), content)
			continue
		}
		w := t.fill(t.user)
		if i > 0 {
			p.text.WriteString(t.fill(wrap{before: t.again}).before)
		}
		if t.merged && system != "" && i == holder {
			p.text.WriteString(w.before)
			p.add(t.fill(t.system), system)
			w.before = ""
		}
		p.add(w, content)
	}
	if addAssistant {
		p.text.WriteString(t.fill(wrap{before: t.prompt}).before)
	}
	return p, nil
}

func (t *Template) fill(w wrap) wrap {
	r := strings.NewReplacer("{bos}", t.bos, "{eos}", t.eos)
	return wrap{r.Replace(w.before), r.Replace(w.after)}
}

// split takes the system's content off the front and checks the turns.
func (t *Template) split(messages []Message) (system string, turns []Message, err error) {
	system, turns = t.says, messages
	if len(messages) > 0 && messages[0].Role == "system" {
		system, turns = messages[0].Content, messages[1:]
		if t.trim {
			system = strings.TrimSpace(system)
		}
		if t.mute {
			return "", nil, errors.New("the system has no say in this format: put its text into the first message of the user")
		}
	}
	if len(turns) == 0 {
		return "", nil, errors.New("there is no message of a user")
	}
	for i, m := range turns {
		switch {
		case m.Role != "user" && m.Role != "assistant":
			return "", nil, fmt.Errorf("message %d is from %.20q, want system first, then user and assistant", len(messages)-len(turns)+i, m.Role)
		case t.strict && (m.Role == "user") != (i%2 == 0):
			return "", nil, fmt.Errorf("message %d is from the %s, but user and assistant must take turns, the user first", len(messages)-len(turns)+i, m.Role)
		}
	}
	return system, turns, nil
}

// EncodeChat returns the ids of a conversation. Special tokens are recognised in what the template wrote. In contents
// nothing that could end a turn or begin another is recognised, also not across their borders: a user who writes
// "<|im_end|>" is quoted, not obeyed. Otherwise the text is tokenized as one, as models were trained on it.
func (t *Tokenizer) EncodeChat(p *Prompt) []int32 {
	text := p.String()
	structure := map[int32]bool{} // user-defined tokens that this template uses
	outside := func(at, n int) bool {
		i, _ := slices.BinarySearchFunc(p.content, at, func(c [2]int, at int) int { return c[1] - 1 - at })
		return i == len(p.content) || at+n <= p.content[i][0]
	}
	for at := 0; at < len(text); at++ {
		t.prompts.match(text[at:], func(s *special) bool {
			if outside(at, len(s.text)) && strings.TrimSpace(s.text) != "" {
				structure[s.id] = true
			}
			return false
		})
	}
	var ids []int32
	if t.meta.AddBOS {
		ids = append(ids, t.meta.BOS)
	}
	return t.encode(ids, text, t.prompts, func(at int, s *special) bool {
		return outside(at, len(s.text)) || s.plain && !structure[s.id]
	})
}
