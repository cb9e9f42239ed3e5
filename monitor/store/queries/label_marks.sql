-- How often labels were written that may count in a window of predictions: known up to a day before it, and until a time.
SELECT sum(label_marks.marks) AS marks
FROM label_marks
WHERE environment = {environment:String} AND model = {model:String}
    AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')} - INTERVAL 1 DAY) AND hour < {end:DateTime64(3, 'UTC')}
