-- Thirty chats for every hundred people, each about one of these topics; a longer chat goes on to the second question.
CREATE TEMP TABLE world_topics ON COMMIT DROP AS
SELECT * FROM (VALUES
  (1, 89, 'borrow or lend?',
    'What is the difference between "borrow" and "lend"?',
    'You borrow something from somebody, and you lend something to somebody. "May I borrow your pen?" asks the owner for it.',
    'So "Can you borrow me your pen?" is wrong?',
    'Yes. Say "Can you lend me your pen?" or "Can I borrow your pen?".'),
  (2, 188, 'Is "advice" countable?',
    'Can I say "an advice"?',
    'No, "advice" is uncountable. Say "some advice" or "a piece of advice".',
    'And what is the verb?',
    '"Advise", with an s: "She advised me to wait."'),
  (3, 199, 'Two meanings of "bank"',
    'Why does "bank" also mean the side of a river?',
    'They are two different words that are spelled alike. The context tells which: "the bank of the river".',
    'Are there other words like this?',
    'Many: "bark" is the sound of a dog and also the skin of a tree.'),
  (4, 385, 'Using "evidence"',
    'Is "evidences" correct?',
    'As a noun "evidence" has no plural. Say "much evidence" or "several pieces of evidence".',
    'Which verbs go with it?',
    'We find, gather or give evidence: "The police found new evidence."'),
  (5, 462, 'Remembering "meticulous"',
    'How can I remember "meticulous"?',
    'Think of somebody who measures every metre: a meticulous person is careful about every detail.',
    'Is it a positive word?',
    'Mostly, yes: "meticulous work" is praise.'),
  (6, NULL, 'Talking about the weekend',
    'Can we practise small talk about the weekend?',
    'Of course! What did you do on Saturday?',
    'I go to the sea with my friends.',
    'Nice! Since it is over, use the past: "I went to the sea with my friends."')
) AS topic (k, item, title, first_question, first_answer, second_question, second_answer);

CREATE TEMP TABLE world_chats ON COMMIT DROP AS
SELECT
  c,
  md5('effect/chat/' || c)::uuid AS chat_id,
  person.user_id,
  topic.*,
  person.registered_at + make_interval(hours => 2, secs => pg_temp.dice('chat at/' || c, (41 - person.registered_day) * 86400))
    AS started_at
FROM generate_series(1, 30 * current_setting('xtask.scale')::integer) AS c
JOIN world_people AS person ON person.n = (c - 1) / 30 * 100 + 1 + pg_temp.dice('chat by/' || c, 100)
JOIN world_topics AS topic ON topic.k = 1 + pg_temp.dice('chat about/' || c, 6);

INSERT INTO chat_sessions (id, user_id, item_id, title, started_at, archived_at, updated_at)
SELECT
  chat_id,
  user_id,
  md5('effect/item/' || item)::uuid,
  title,
  started_at,
  CASE WHEN c % 5 = 0 THEN started_at + interval '1 hour' END,
  started_at
FROM world_chats
ORDER BY c;

INSERT INTO chat_messages (chat_session_id, number, role, content, tokens, sent_at)
SELECT
  chat.chat_id,
  message.number,
  message.role::message_role,
  message.content,
  -- about four characters make a token
  length(message.content) / 4,
  chat.started_at + make_interval(secs => 25 * message.number)
FROM world_chats AS chat
CROSS JOIN LATERAL (VALUES
  (1, 'user', chat.first_question),
  (2, 'assistant', chat.first_answer),
  (3, 'user', chat.second_question),
  (4, 'assistant', chat.second_answer)
) AS message (number, role, content)
WHERE message.number <= 2 OR chat.c % 3 <> 0
ORDER BY chat.c, message.number;
