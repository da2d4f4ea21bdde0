SELECT stream.stream_id, stream.version AS head, count(event.version) AS events, min(event.version), max(event.version)
FROM event_streams AS stream
FULL JOIN events AS event USING (stream_id)
GROUP BY stream.stream_id, stream.version
HAVING stream.stream_id IS NULL
  OR count(event.version) <> stream.version
  OR count(event.version) > 0 AND (min(event.version) <> 1 OR max(event.version) <> stream.version)
ORDER BY 1
