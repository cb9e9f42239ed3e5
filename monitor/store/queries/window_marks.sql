-- How often something was written to the profiles of the hours that a window touches.
SELECT sum(profile_marks.marks) AS marks
FROM profile_marks
WHERE environment = {environment:String} AND model = {model:String}
    AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')}) AND hour < {end:DateTime64(3, 'UTC')}
