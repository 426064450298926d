// Drives a server with the official client and prints what it saw as JSON.
// Usage: node client.mjs BASE_URL MODEL PROMPT
import OpenAI from 'openai';

const [baseURL, model, prompt] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'k', maxRetries: 0 });
const seen = { models: [] };
for await (const m of client.models.list()) seen.models.push(m.id);

const messages = [{ role: 'user', content: prompt }];
const ask = { model, messages, temperature: 0, max_completion_tokens: 24 };
const whole = await client.chat.completions.create(ask);
seen.whole = whole.choices[0].message.content;
seen.finish = whole.choices[0].finish_reason;
seen.usage = whole.usage;

seen.streamed = '';
seen.roles = 0;
const stream = await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } });
for await (const c of stream) {
  seen.streamed += c.choices[0]?.delta?.content ?? '';
  if (c.choices[0]?.delta?.role === 'assistant') seen.roles++;
  if (c.usage) seen.streamUsage = c.usage;
}
// The client's own reader of streams checks more: roles, indices, finish.
seen.runner = (await client.chat.completions.stream(ask).finalChatCompletion()).choices[0].message.content;

seen.completion = '';
for await (const c of await client.completions.create({ model, prompt, temperature: 0, max_tokens: 24, stream: true })) {
  seen.completion += c.choices[0].text;
}

const failure = async (make) => {
  try {
    await make();
    return 'none';
  } catch (e) {
    return `${e.constructor.name} ${e.status} ${e.code} ${e.param}`;
  }
};
seen.noModel = await failure(() => client.chat.completions.create({ ...ask, model: 'nobody' }));
seen.tooLong = await failure(() => client.chat.completions.create({ ...ask, max_completion_tokens: 1000000 }));
seen.noKey = await failure(() => new OpenAI({ baseURL, apiKey: 'x', maxRetries: 0 }).models.list());

const long = await client.completions.create({ model, prompt: 'a', temperature: 2, seed: 1, max_tokens: 100, stream: true });
for await (const _ of long) {
  long.controller.abort(); // hangs up after the first chunk
  break;
}
console.log(JSON.stringify(seen));
